# A model worker: it samples responses and trains reward models. It calls the web app; nothing calls it.
FROM python:3.11-slim

# Options for installing torch, for example another index where the build for processors only is much smaller.
ARG TORCH_PIP_OPTIONS=""

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HF_HUB_OFFLINE=1 \
    PREFERABLY_WORKER_OUTPUT_DIR=/output

WORKDIR /srv/preferably

COPY pyproject.toml constraints.txt README.md LICENSE ./

# First and alone: the largest layer by far, and the one that changes least.
RUN pip install --constraint constraints.txt ${TORCH_PIP_OPTIONS} torch

COPY contract contract
COPY model_worker model_worker

# Editable: the demo checkpoint and its corpus lie inside the package as plain files.
RUN pip install --constraint constraints.txt --editable '.[worker]' \
    && useradd --system --uid 10001 --home-dir /output preferably \
    && mkdir /output \
    && chown preferably /output

USER preferably
VOLUME /output

CMD ["preferably-worker", "run"]
