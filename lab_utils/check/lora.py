"""The exercises of notebook 03_lora."""

from __future__ import annotations

from lab_utils.check.exercise import Almost, ask, exercise, tensor


def _lora_forward():
    def forward(x, W, A, B, alpha):
        return x @ W.T + alpha / A.shape[0] * (x @ A.T) @ B.T

    return forward


@exercise(
    "03_lora",
    "build",
    "Write the forward pass of a LoRA layer",
    hints=(
        "Start with the frozen layer alone: x @ W.T. Its update has the same shape.",
        "x goes through A first, which leaves r numbers, then through B: (x @ A.T) @ B.T.",
        "The update is multiplied by alpha / r, and r is the number of rows of A.",
    ),
    solution=_lora_forward,
)
def lora_forward(answer):
    """Judges `f(x, W, A, B, alpha)`: x is (n, n_in), W (n_out, n_in), A (r, n_in), B (n_out, r); Hu et al. 2021, equation 3."""
    import torch

    draw = torch.Generator().manual_seed(0)
    x, W, A, B = (torch.randn(*shape, generator=draw) for shape in ((3, 6), (5, 6), (2, 6), (5, 2)))
    plain, update = x @ W.T, (x @ A.T) @ B.T
    found = tensor(ask(answer, x, W, A, B, 8.0), like=plain)

    def equals(other):
        return torch.allclose(found, other, rtol=1e-4, atol=1e-4)

    if equals(plain + 4 * update):
        return "It equals the layer with W + (alpha / r) B A in place of W."
    for wrong, why in (
        (plain, "This is the frozen layer alone: the update is missing."),
        (4 * update, "This is the update alone: the output of the frozen layer is missing."),
        (plain + update, "The update is not scaled."),
        (plain + 8 * update, "The update is multiplied by alpha, and not divided by r."),
        (4 * (plain + update), "The scale belongs to the update only, not to the frozen layer's output."),
    ):
        if equals(wrong):
            raise Almost(why)
    raise Almost("The shape is right and the numbers are not.")
