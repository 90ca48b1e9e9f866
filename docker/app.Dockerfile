# The web app. It has no torch: model workers are images of their own (worker.Dockerfile).
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PREFERABLY_DATA_DIR=/data

WORKDIR /srv/preferably

COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY contract contract
COPY migrations migrations
COPY templates templates
COPY app app

# Editable: templates and migrations lie beside the packages, and app/paths.py finds them there.
RUN pip install --constraint constraints.txt --editable . \
    && useradd --system --uid 10001 --home-dir /data preferably \
    && mkdir /data \
    && chown preferably /data

USER preferably
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]

CMD ["preferably", "serve", "--host", "0.0.0.0", "--port", "8000"]
