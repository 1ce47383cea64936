"""What a torch optimizer remembers of a module's parameters, as named tensors of a checkpoint.

A slot is a tensor that the optimizer keeps for a parameter: ``momentum_buffer``, ``exp_avg``,
``step``, ... Its name in a checkpoint is ``optimizer/<parameter>/<slot>``.
"""

import torch
from torch import nn

from plsc.train.head import decode

__all__ = ["slots", "take_slots"]


def slots(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the optimizer's tensors for the parameters of ``module``, by name; no copies."""
    return {
        f"optimizer/{name}/{slot}": value
        for name, parameter in module.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def take_slots(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    """Replace the optimizer's tensors for ``module`` by those among ``tensors``.

    Only for parameters that the optimizer updates. The tensors may have been stored in another
    format than the parameter's.
    """
    updated = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        prefix = f"optimizer/{name}/"
        found = {key.removeprefix(prefix) for key in tensors if key.startswith(prefix)}
        found -= {f"{slot}_scale" for slot in found}  # of int8: decode takes them along
        if found and id(parameter) in updated:
            optimizer.state[parameter] = {
                slot: _like(parameter, decode(prefix + slot, tensors)) for slot in sorted(found)
            }


def _like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a copy laid out as the parameter is; numbers (Adam's step) stay where they were."""
    if value.ndim == 0:
        return value.clone()
    return torch.empty_like(parameter, requires_grad=False).copy_(value)
