"""L2 penalty of all trainable weights, as a term of the loss."""

from __future__ import annotations

import keras


def penalise_weights(model: keras.Model, factor: float) -> None:
    """Add the penalty λ/2 ‖θ‖² to the loss of a model, with θ all trainable weights.

    Weights whose layer has a penalty of its own, such as MarsLS-Net's dilated kernels, keep that one. The penalty is
    not saved with the model.

    Args:
        model: The network, before `compile`.
        factor: Factor λ; 0 changes nothing.

    Reference:
        Pham et al., "RMAU-NET", 2025, eq. 1, with λ = 1e-4.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
        >>> penalise_weights(model, 0.5)
        >>> float(sum(model.losses))  # of two ones and a bias of 0
        0.5
    """
    if not factor:
        return
    for variable in model.trainable_variables:
        if variable.regularizer is None:
            variable.regularizer = keras.regularizers.L2(factor / 2)
