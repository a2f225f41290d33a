"""Kafka and PostgreSQL for trying Guerdon out and for its tests: found, started, looked at and ended."""
