"""Django's PostgreSQL backend with an end to every wait.

docs/adr/0026-a-frozen-database-is-a-refusal.md
"""
