"""What ``ENGINE`` names: Django's backend, with bounded connections and unbounded migrations."""

from typing import Any, Self

from django.db.backends.postgresql import base, schema
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolTimeout

from rexsite.postgres.connection import BoundedConnection, silence


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """Building an index takes as long as it takes; only its wait for locks stays bounded."""

    _patience_s: float | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self._set_limits(None, "0")
        return self

    def __exit__(self, *failure: Any) -> None:
        try:
            super().__exit__(*failure)
        finally:
            self._set_limits(BoundedConnection.patience_s, "DEFAULT")

    def _set_limits(self, patience_s: float | None, statement_timeout: str) -> None:
        if self.collect_sql:
            return
        connection = self.connection.connection
        if not isinstance(connection, BoundedConnection) or connection.closed:
            return
        connection.patience_s = patience_s
        if connection.info.transaction_status != TransactionStatus.INERROR:
            connection.execute(f"SET statement_timeout TO {statement_timeout}".encode())


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **options: Any) -> None:
        pool = settings_dict["OPTIONS"].get("pool")
        if pool:
            pool.setdefault("connection_class", BoundedConnection)
        super().__init__(settings_dict, *args, **options)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        silence.check()
        try:
            connection = super().get_new_connection(conn_params)
        except PoolTimeout as error:
            if silence.reason:
                # Else the connections there are were all in use, and the next may be free soon.
                silence.noticed()
            raise PoolTimeout(f"{error} {silence.reason}".strip()) from None
        silence.broken()
        return connection
