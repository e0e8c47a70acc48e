"""A model that params.yaml names in ``external``, as a subject: segments and threshold are those of the task's mle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from freshstart.evaluation import subject
from freshstart.tokens import CONTROLS

if TYPE_CHECKING:
    import torch

    from freshstart.params import ExternalModel


def of(chosen: ExternalModel, mle: Mapping[str, Any], device: torch.device) -> subject.Subject:
    """``mle`` is the record of the task's mle model."""
    return subject.external(
        chosen.model,
        device,
        segments=mle["segments"],
        threshold=mle["threshold"],
        revision=chosen.revision,
        controls={label: chosen.controls[label] for label in CONTROLS if chosen.controls},
        white_space=chosen.white_space,
    )
