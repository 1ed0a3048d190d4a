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
import timm_torch
import transformers_torch
from marsls_keras.models import load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.swin import swin
from marsls_keras.models.encoders.vit import VIT, vit

assert keras.backend.backend() == "jax"
VIT["thin"] = (2, 32, 4)
image = keras.Input((None, None, 3))
graph = vit("thin", image, grid=4)
options = dict(timm_torch.THIN_SWIN)
thin_swin = swin(image, heads=options.pop("num_heads"), **options)
models = {
    "mit/mit_b0": build_encoder("mit_b0"),
    "convnext/convnext_v2_atto": build_encoder("convnext_v2_atto"),
    "vit/thin": keras.Model(image, graph),
    "swin/thin": keras.Model(image, thin_swin),
}
worst = {}
for key, model in models.items():
    family, name = key.split("/")
    script = timm_torch if family in ("swin",) else transformers_torch
    reference = np.load(f"{sys.argv[1]}/{family}.npz")
    save_file(script.tensors(script.shapes_of(reference, name)), sys.argv[2])
    load_pretrained(model, sys.argv[2])
    if family == "vit":
        last = keras.Model(model.input, model.get_layer("vit_map").output)
        found = {f"{name}/{h}x{w}": last.predict(script.image((h, w)), verbose=0) for h, w in script.VIT_SIZES}
    else:
        found = {
            f"{name}/{size[0]}/{level}": x
            for size in script.SIZES
            for level, x in model.predict(script.image(size), verbose=0).items()
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
    assert len(worst) == 4 and max(worst.values()) < 1e-4, worst
