"""Encoders on JAX against the stored references of PyTorch, in a separate process, since Keras has one backend each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCES = Path(__file__).resolve().parents[1] / "references"

CODE = """
import json, sys
import keras, numpy as np
from safetensors.numpy import save_file
sys.path.insert(0, sys.argv[1])
import dino_torch, timm_torch
import transformers_torch as script
from marsls_keras.models import load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.dino import DINO, Dino, dino
from marsls_keras.models.encoders.swin import swin
from marsls_keras.models.encoders.vit import VIT, vit

assert keras.backend.backend() == "jax"
VIT["thin"] = (2, 32, 4)
image = keras.Input((None, None, 3))
graph = vit("thin", image, grid=4)
for name, grid, registers in (("dinov2", 4, 0), ("dinov2_reg", 4, 4), ("dinov3", None, 4)):
    DINO[name] = Dino(dino_torch.DEPTH, dino_torch.WIDTH, dino_torch.HEADS, grid, registers)
options = dict(timm_torch.THIN_SWIN)
thin_swin = swin(image, heads=options.pop("num_heads"), **options)
models = {
    "mit/mit_b0": build_encoder("mit_b0"),
    "convnext/convnext_v2_atto": build_encoder("convnext_v2_atto"),
    "vit/thin": keras.Model(image, graph),
    "swin/thin": keras.Model(image, thin_swin),
    "dino/transformers/dinov2": keras.Model(image, dino("dinov2", image)),
    "dino/transformers/dinov2_reg": keras.Model(image, dino("dinov2_reg", image)),
    "dino/transformers/dinov3": keras.Model(image, dino("dinov3", image)),
    "hgnet_v2/hgnetv2_b0": build_encoder("hgnetv2_b0"),
}
sizes = {"swin": timm_torch.SIZES, "hgnet_v2": timm_torch.HGNET_SIZES}
worst = {}
for key, model in models.items():
    family, _, name = key.partition("/")
    reference = np.load(f"{sys.argv[1]}/{family}.npz")
    save_file(script.tensors(script.shapes_of(reference, name)), sys.argv[2])
    load_pretrained(model, sys.argv[2])
    if family in ("vit", "dino"):
        last = keras.Model(model.input, model.get_layer("vit_map").output)
        found = {f"{name}/{h}x{w}": last.predict(script.image((h, w)), verbose=0) for h, w in script.VIT_SIZES}
    else:
        found = {
            f"{name}/{size[0]}/{level}": x[..., :: timm_torch.PART if family == "hgnet_v2" else 1]
            for size in sizes.get(family, script.SIZES)
            for level, x in model.predict(script.image(size), verbose=0).items()
            if level != "P1"
        }
    worst[key] = max(float(np.abs(x - reference[k]).max() / np.abs(reference[k]).max()) for k, x in found.items())
print(json.dumps(worst))
"""


@pytest.mark.slow
def test_maps_are_those_of_pytorch(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", CODE, str(REFERENCES), str(tmp_path / "w.safetensors")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    worst = json.loads(done.stdout.splitlines()[-1])
    assert len(worst) == 8 and max(worst.values()) < 1e-4, worst
