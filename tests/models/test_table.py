"""The stored table and the descriptions of the networks against the built networks."""

import json

import pytest

from marsls_keras.models import describe_models
from marsls_keras.models.networks import NETWORKS, STAGES, stored_table
from marsls_keras.models.registry import all_options, signature_options
from marsls_keras.models.table import counted

# Networks that take long to build.
BIG = (
    *("attention_unet", "deeplab_v3", "deeplab_v3_plus", "dual_swin", "mmsformer", "pspnet", "r2_unet", "res_unet"),
    *("rmau_backbone", "swin_fpn", "swin_unet", "trans_unet", "unet_plus_plus"),
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in BIG else ()) for name in sorted(NETWORKS)]
)
def test_the_table_is_what_building_the_network_gives(name):
    assert json.loads(json.dumps(counted(name))) == stored_table()[name]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_options_of_the_table_are_those_of_the_builder(name):
    assert json.loads(json.dumps(signature_options(name))) == stored_table()[name]["options"]


def test_the_table_has_every_network_and_models_prints_it():
    assert sorted(stored_table()) == sorted(NETWORKS) == [row["name"] for row in describe_models()]
    # The count that the U-Net's docstring states; the paper's network is the one that takes long to build.
    assert {row["name"]: (row["parameters"], row["trainable"]) for row in describe_models()}["unet"] == (
        1946097,
        1943153,
    )


def test_the_choices_are_what_the_builders_know():
    from marsls_keras.models import mars_ls_net, rmau_net
    from marsls_keras.models.decoders import DECODERS
    from marsls_keras.models.encoders import ENCODERS
    from marsls_keras.models.encoders.mit import MIT
    from marsls_keras.models.fusion import ATTENTIONS, FUSIONS, LATE

    for name in ("segmenter", "dual_swin"):
        choices = {option: set(known) for option, known in NETWORKS[name].choices.items()}
        assert choices == {
            "encoder": set(ENCODERS),
            "fusion": {*FUSIONS, LATE},
            "decoder": set(DECODERS),
            **dict.fromkeys(("input_attention", "encoder_attention", "decoder_attention"), {"none", *ATTENTIONS}),
        }
    assert NETWORKS["segformer"].choices["encoder"] == tuple(MIT)
    swins = tuple(name for name in ENCODERS if name.startswith("swin_") and not name.startswith("swin_v2"))
    assert NETWORKS["swin_fpn"].choices["encoder"] == swins
    assert NETWORKS["mars_ls_net"].choices["size"] == tuple(mars_ls_net.SIZES)
    tables = {"block": rmau_net._BLOCKS, "attention": rmau_net._ATTENTIONS, "head": rmau_net._LOGITS}
    assert NETWORKS["rmau_net"].choices == {option: tuple(known) for option, known in tables.items()}


def test_levels_and_strides_are_those_of_the_parts():
    from marsls_keras.layers.spatial_attention import POOL
    from marsls_keras.models.encoders import ENCODERS
    from marsls_keras.models.pyramid import LEVELS

    assert len(STAGES) == 1 + len(LEVELS)
    for name, encoder in ENCODERS.items():
        assert tuple(NETWORKS["dual_swin"].encoder(encoder=name)) == encoder.levels
    for attention, stride in (("pooled", POOL), ("axial", 1)):
        assert NETWORKS["mars_ls_net"].stride(**all_options("mars_ls_net", {"attention": attention})) == stride


def test_every_network_has_a_family_and_what_it_needs_is_known():
    from marsls_keras.models.catalogue import FAMILIES, required_packages, weight_source
    from marsls_keras.models.encoders import ENCODERS

    assert set(FAMILIES) == set(NETWORKS)
    needing = {name for name in ENCODERS if required_packages("segmenter", {"encoder": name})}
    assert needing == {"resnet_v2_18_narrow", "resnet_v2_18", "resnet_v2_50", "efficientnet_v2_b0"}
    # Encoders of keras-cv are the only ones whose weights nobody publishes in a form that is read here.
    assert {name for name in ENCODERS if weight_source("segmenter", {"encoder": name}) is None} == needing
