"""What the pages call a role, a scope, a state, a dimension: in the reader's language."""

from datetime import datetime
from decimal import Decimal

from django.utils.formats import number_format
from django.utils.translation import gettext_lazy as _

from workspaces.domain.quotas import MONEY, Dimension
from workspaces.models import ApiKey, Membership

MICRO = 1_000_000
"""Money is kept in micro-dollars, and read and written in dollars."""

ROLES = {
    Membership.Role.OWNER: _("Owner"),
    Membership.Role.MEMBER: _("Member"),
    Membership.Role.VIEWER: _("Viewer"),
}
RIGHTS = {
    Membership.Role.OWNER: _("Asks, and manages members and keys"),
    Membership.Role.MEMBER: _("Asks, and stops runs"),
    Membership.Role.VIEWER: _("Only looks"),
}
SCOPES = {
    ApiKey.Scope.RUNS_READ: _("See runs and models"),
    ApiKey.Scope.RUNS_WRITE: _("Start and stop runs"),
    ApiKey.Scope.USAGE_READ: _("See usage and quotas"),
}
DIMENSIONS = {
    Dimension.REQUESTS_PER_MINUTE: _("Requests a minute"),
    Dimension.CONCURRENT_RUNS: _("Runs at once"),
    Dimension.FANOUT_WIDTH: _("Models a run may ask"),
    Dimension.TOKENS_PER_DAY: _("Tokens a day"),
    Dimension.COST_PER_DAY: _("Dollars a day"),
    Dimension.COST_PER_MONTH: _("Dollars a month"),
}


def amount(dimension: Dimension, value: int) -> str:
    """A number of ``dimension`` in its reader's form: "5,000" is "5.000" in German, where a comma
    would say five."""
    if dimension not in MONEY:
        return str(number_format(value, force_grouping=True))
    places = 6 if value % 10_000 else 2
    return f"${number_format(Decimal(value) / MICRO, places, force_grouping=True)}"


def state_of_key(key: ApiKey, now: datetime) -> str:
    """``revoked``, ``expired``, ``replaced`` (live for a while yet) or ``active``."""
    if key.revoked_at is not None:
        return "revoked"
    if not key.is_live(now):
        return "expired"
    return "replaced" if key.replaced_by_id is not None else "active"


STATES = {
    "active": _("active"),
    "replaced": _("replaced, still valid"),
    "expired": _("expired"),
    "revoked": _("revoked"),
}
