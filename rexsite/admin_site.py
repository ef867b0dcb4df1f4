"""The admin console: Django's admin with the site's own sign-in, look and first page."""

from functools import wraps
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone, translation

# Names of pages and who may see them: (words, name of the page, permission).
NAV = (
    (
        "Now",
        (
            ("Overview", "index", ""),
            ("Under way", "orchestration_run_live", "orchestration.view_run"),
            ("Providers", "orchestration_pausedmodel_providers", "orchestration.view_pausedmodel"),
        ),
    ),
    (
        "Workspaces",
        (
            ("Workspaces", "workspaces_workspace_changelist", "workspaces.view_workspace"),
            ("Keys", "workspaces_apikey_changelist", "workspaces.view_apikey"),
            (
                "Overrides",
                "workspaces_quotaoverride_changelist",
                "workspaces.view_quotaoverride",
            ),
        ),
    ),
    (
        "Models",
        (
            ("Prices", "orchestration_modelprice_table", "orchestration.view_modelprice"),
            ("Pauses", "orchestration_pausedmodel_changelist", "orchestration.view_pausedmodel"),
        ),
    ),
    (
        "Records",
        (
            ("Runs", "orchestration_run_changelist", "orchestration.view_run"),
            ("Ledger", "workspaces_reservation_changelist", "workspaces.view_reservation"),
            ("Counters", "workspaces_counter_changelist", "workspaces.view_counter"),
            ("Audit log", "workspaces_auditentry_changelist", "workspaces.view_auditentry"),
        ),
    ),
    (
        "People",
        (
            # Nobody is given this permission: only superusers have what does not exist.
            ("Users", "auth_user_changelist", "superuser"),
            ("Groups", "auth_group_changelist", "superuser"),
        ),
    ),
)
# Django's own pages that the site has better ones for.
_LEFT_OUT = ("password_change", "password_change_done", "autocomplete", "jsi18n", "view_on_site")


class ConsoleSite(AdminSite):
    """For staff. Whoever is signed in and is no staff is refused; others are sent to sign in."""

    site_title = "Rex console"
    site_header = "Rex console"
    index_title = "Overview"
    empty_value_display = "—"
    enable_nav_sidebar = False

    def __init__(self, name: str = "admin") -> None:
        super().__init__(name)
        # What is deleted is named on a page of its own first, one at a time.
        self.disable_action("delete_selected")

    def get_urls(self) -> list[URLPattern | URLResolver]:
        return [each for each in super().get_urls() if getattr(each, "name", None) not in _LEFT_OUT]

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """As Django's, but what it says is English, as the pages are, whoever reads them."""
        guarded = super().admin_view(view, cacheable)

        @wraps(guarded)
        def in_english(*args: Any, **kwargs: Any) -> Any:
            with translation.override("en"):
                return guarded(*args, **kwargs)

        return in_english

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """The site's sign-in, which is throttled."""
        back = request.GET.get("next") or reverse("admin:index")
        if self.has_permission(request):
            return HttpResponseRedirect(reverse("admin:index"))
        if request.user.is_authenticated:
            raise PermissionDenied
        return HttpResponseRedirect(f"{reverse(settings.LOGIN_URL)}?{urlencode({'next': back})}")

    def logout(  # type: ignore[override]
        self, request: HttpRequest, extra_context: Any = None
    ) -> HttpResponse:
        """Nothing is signed out by a link; the header of the page has the button."""
        return HttpResponseRedirect(reverse("start"))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "console_nav": _nav(request)}

    def index(self, request: HttpRequest, extra_context: Any = None) -> TemplateResponse:
        """What an operator needs at night, as far as their permissions go."""
        context = {**self.each_context(request), "title": self.index_title, **_overview(request)}
        return TemplateResponse(request, "admin/index.html", context)

    def app_index(  # type: ignore[override]
        self, request: HttpRequest, app_label: str, extra_context: Any = None
    ) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:index"))


def _nav(request: HttpRequest) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """The pages this operator may see: (group, [(words, address, whether it is this one)])."""
    here = request.path
    found = []
    for group, pages in NAV:
        seen = [
            (words, reverse(f"admin:{page}"))
            for words, page, permission in pages
            if not permission or request.user.has_perm(permission)
        ]
        if seen:
            found.append((group, seen))
    # The longest address that this page lies below: "…/run/live/" before "…/run/".
    addresses = [address for _, pages in found for _, address in pages]
    below = [each for each in addresses if here.startswith(each) and each != reverse("admin:index")]
    current = max(below, key=len, default=here)
    return [
        (group, [(words, address, address == current) for words, address in pages])
        for group, pages in found
    ]


def _overview(request: HttpRequest) -> dict[str, Any]:
    # Only here: models can be imported once all apps are ready.
    from orchestration.admin.pauses import targets_or_why, trouble_of
    from orchestration.admin.queries import counts_under_way, failed_lately
    from orchestration.models import PausedModel
    from workspaces.admin.show import bars
    from workspaces.admin.standings import near_a_quota
    from workspaces.models import AuditEntry, Workspace

    may = request.user.has_perm
    found: dict[str, Any] = {}
    if may("orchestration.view_run"):
        found |= {"under_way": counts_under_way(), "failed": failed_lately()}
    if may("workspaces.view_workspace"):
        found["near"] = [
            (row, bars(stand.uses, lasting=True)) for row, stand in near_a_quota(timezone.now())
        ]
        found["paused_workspaces"] = Workspace.objects.filter(paused_at__isnull=False)[:20]
    if may("orchestration.view_pausedmodel"):
        known, why = targets_or_why()
        in_trouble = [(each, trouble_of(each)) for each in known.targets] if known else []
        found |= {
            "providers_known": known is not None,
            "why_unknown": why,
            "in_trouble": [(each, words) for each, words in in_trouble if words][:10],
            "paused_models": PausedModel.objects.order_by("model")[:20],
        }
    if may("workspaces.view_auditentry"):
        entries = AuditEntry.objects.everywhere().select_related("workspace")
        found["changes"] = entries.order_by("-at", "-pk")[:8]
    return found
