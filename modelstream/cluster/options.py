"""What the workflow is asked to do in addition to deploying."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WorkflowOptions:
    """The options of `deploy`, and the generator's parameters in the cluster's file."""

    generate: bool = False
    train: bool = False
    model_version: str = ""
    generator: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Return the workflow's parameters."""
        words = {"generate": self.generate, "train": self.train}
        return {name: "yes" if value else "no" for name, value in words.items()} | {
            "model_version": self.model_version,
            **self.generator,
        }
