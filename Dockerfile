# The worker and every other command of `guerdon`: docker-compose.yml runs `init` and `run` from it.
FROM python:3.11.14-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

RUN python -m venv /opt/venv
WORKDIR /src

# The dependencies change seldom: in a layer of their own they are not fetched again with every change of the code.
COPY requirements.lock ./
RUN /opt/venv/bin/pip install --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY engine engine
COPY projections projections
COPY operations operations
COPY consumers consumers
COPY api api
COPY cli cli
RUN /opt/venv/bin/pip install --no-deps --no-build-isolation .

# What runs: the libraries and Guerdon as installed, without its sources.
FROM python:3.11.14-slim-bookworm

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 10001 guerdon
WORKDIR /opt/guerdon
COPY --from=build /opt/venv /opt/venv
COPY examples examples

USER guerdon

# SIGTERM finishes the batch at hand; without an init process in between it reaches the worker itself.
STOPSIGNAL SIGTERM
# Health and metrics: `run --listen 0.0.0.0:9100`, as docker-compose.yml has it.
EXPOSE 9100
ENTRYPOINT ["guerdon"]
CMD ["run"]
