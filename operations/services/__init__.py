"""Find, start, watch and end a Kafka and a PostgreSQL, to try Guerdon out and for its tests."""
