"""Websocket routes."""

from django.urls import path, re_path

from orchestration.consumers import NowhereConsumer, RunConsumer

websocket_urlpatterns = [
    path("ws/runs/<uuid:run_id>/", RunConsumer.as_asgi()),
    re_path("", NowhereConsumer.as_asgi()),
]
