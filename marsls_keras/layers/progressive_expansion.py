"""Progressive expansion: more feature maps, from the partial sums of a power series."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def log1p_coefficient(n: int) -> float:
    """Return the coefficient of x^n in the Maclaurin series of ln(1 + x), for n >= 1.

    Example:
        >>> [log1p_coefficient(n) for n in (1, 2, 4)]
        [1.0, -0.5, -0.25]
    """
    return (-1) ** (n + 1) / n


@keras.saving.register_keras_serializable("marsls_keras")
class ProgressiveExpansion(keras.layers.Layer):
    """Expand C feature maps to u C: the first u partial sums of the Maclaurin series of ln(1 + x), side by side.

    The layer has no parameters.

    S_m(x) = x - x²/2 + x³/3 - … ± x^m/m, for m = 1…u. With the paper's u = 2 the outputs are x and x - x²/2. The
    paper's equation 1 leaves coefficients and powers open ("Maclaurin series expansion of a nonlinear function"); those
    of ln(1 + x) are the choice here, for which the widths of the layers that follow agree with the parameters in its
    Table 3. The series converges for -1 < x ≤ 1 only, which does not matter to a finite sum: x comes from a batch
    normalisation and a ReLU, is seldom above 10, and x² stays far below the largest float16.

    Args:
        terms: Number u of partial sums, at least 1; with 1 the outputs are the inputs.
        **kwargs: Passed to keras.layers.Layer.

    Raises:
        ValueError: If `terms` is less than 1.

    Call arguments:
        inputs: Float (..., C).

    Returns:
        Float (..., u * C): the C values of S_1, then those of S_2, and so on.

    Reference:
        Paheding et al., "MarsLS-Net", WACV 2024, section 3.1, equation 1.

    Example:
        >>> layer = ProgressiveExpansion(terms=2)
        >>> np.array(layer(np.array([[1.0, 0.5]], "float32"))).tolist()  # x, then x - x² / 2
        [[1.0, 0.5, 0.5, 0.375]]
    """

    def __init__(self, terms: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if terms < 1:
            raise ValueError(f"ProgressiveExpansion needs one term or more. Received: terms={terms}")
        self.terms = terms

    def call(self, inputs: Any) -> Any:
        sums, power = [inputs], inputs
        for n in range(2, self.terms + 1):
            power = power * inputs
            sums.append(sums[-1] + power * log1p_coefficient(n))
        return ops.concatenate(sums, axis=-1) if self.terms > 1 else inputs  # (..., u C)

    def project(self, inputs: Any, kernel: Any) -> Any:
        """Return matmul(self(inputs), kernel) without computing the expansion.

        The term c_n x^n occurs in the sums S_n…S_u. The result is the sum over n of x^n times one matrix, which is c_n
        times the sum of the kernel's parts for these sums.

        Args:
            inputs: Float (..., C).
            kernel: Float (u * C, N).

        Returns:
            Float (..., N).
        """
        parts = ops.reshape(kernel, (self.terms, -1, kernel.shape[-1]))  # (u, C, N)
        total, power = ops.matmul(inputs, ops.sum(parts, axis=0)), inputs
        for n in range(2, self.terms + 1):
            power = power * inputs
            total += ops.matmul(power, ops.sum(parts[n - 1 :], axis=0) * log1p_coefficient(n))
        return total  # (..., N)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.terms * input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "terms": self.terms}
