"""The admin console's pages of runs, models and providers; all for operators alone."""

from orchestration.admin import pauses, prices, runs, workspaces

__all__ = ["pauses", "prices", "runs", "workspaces"]
