"""Count the parameters of the networks: `python -m marsls_keras.models.table` rewrites the stored table."""

from __future__ import annotations

from typing import Any

import numpy as np

from marsls_keras.bands.names import BANDS
from marsls_keras.files import write_json
from marsls_keras.models.networks import NETWORKS, TABLE
from marsls_keras.models.registry import builder, signature_options


def counted(name: str) -> dict[str, Any]:
    """Build a network with default options for seven bands, and return its row of `stored_table`.

    Example:
        >>> counted("unet")["parameters"]
        1946097
    """
    model = builder(name)(BANDS if NETWORKS[name].named else len(BANDS))
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return {"options": signature_options(name), "parameters": model.count_params(), "trainable": trainable}


if __name__ == "__main__":
    write_json(TABLE, {name: counted(name) for name in sorted(NETWORKS)})
