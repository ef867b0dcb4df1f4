"""Routes of the pages and of the API of runs."""

from django.urls import path

from orchestration import api, estimate_api, events_api, quotas_api, usage_api, usage_views, views

urlpatterns = [
    path("", views.start, name="start"),
    path("runs/", views.run_list, name="run-list"),
    path("runs.csv", usage_views.runs_as_csv, name="runs-csv"),
    path("usage/", usage_views.usage, name="usage"),
    path("usage.csv", usage_views.usage_as_csv, name="usage-csv"),
    path("runs/<uuid:run_id>/", views.run_detail, name="run-detail"),
    path("runs/<uuid:run_id>/stop/", views.stop, name="run-stop"),
    path("runs/<uuid:run_id>/replay/", views.replay, name="run-replay"),
    path("docs/errors", views.help_errors, name="help-errors"),
    path("api/run", api.StartRun.as_view(), name="api-start"),
    path("api/estimate", estimate_api.Estimate.as_view(), name="api-estimate"),
    path("api/runs", api.Runs.as_view(), name="api-runs"),
    path("api/runs/<uuid:run_id>", api.RunDetail.as_view(), name="api-run"),
    path("api/runs/<uuid:run_id>/events", events_api.events, name="api-events"),
    path("api/runs/<uuid:run_id>/stop", api.StopRun.as_view(), name="api-stop"),
    path(
        "api/runs/<uuid:run_id>/calls/<str:label>/stop",
        api.StopCall.as_view(),
        name="api-stop-call",
    ),
    path("api/quotas", quotas_api.Quotas.as_view(), name="api-quotas"),
    path("api/usage", usage_api.Usage.as_view(), name="api-usage"),
    path("api/models", api.Models.as_view(), name="api-models"),
]
