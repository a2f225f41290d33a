# The worker: `docker compose up --build`, or any other command of `guerdon` in place of `run`.
FROM python:3.11.14-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

WORKDIR /opt/guerdon

# The dependencies change seldom: in a layer of their own they are not fetched again with every change of the code.
COPY requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY engine engine
COPY projections projections
COPY operations operations
COPY consumers consumers
COPY cli cli
COPY examples examples
RUN pip install --no-deps --no-build-isolation --editable . \
    && useradd --create-home --uid 10001 guerdon

USER guerdon

# SIGTERM finishes the batch at hand; without an init process in between it reaches the worker itself.
STOPSIGNAL SIGTERM
# Health and metrics: `run --listen 0.0.0.0:9100`, as docker-compose.yml has it.
EXPOSE 9100
ENTRYPOINT ["guerdon"]
CMD ["run"]
