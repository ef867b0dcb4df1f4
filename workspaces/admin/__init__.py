"""The admin console's pages of workspaces, for operators: Django staff, who see all of them.

What they see of a workspace are its numbers, names and rules; what was asked and answered in it is
for its members. ``console`` has what all pages share.
"""

from workspaces.admin import audit, keys, ledger, overrides, people

__all__ = ["audit", "keys", "ledger", "overrides", "people"]
