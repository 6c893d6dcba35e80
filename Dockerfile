# ecosystem in a container; docs/containers.md says how to use it.
#
#   docker build -t ecosystem .
#   docker build -t ecosystem:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
# The index with builds of torch for one kind of device. All versions are those of constraints.txt.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=view,fit
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/ecosystem
ENV PATH=/opt/ecosystem/bin:$PATH
WORKDIR /source
# torch first, in a layer of its own: it is the largest part, and changes least.
COPY constraints.txt ./
RUN pip install --extra-index-url "${TORCH_INDEX}" -c constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY ecosystem ecosystem
COPY models models
COPY scenarios scenarios
RUN pip install --extra-index-url "${TORCH_INDEX}" -c constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
# A compiler for the kernels with which small GPT-2s train and write faster. Debian removes old versions: none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
# Any user may write there, so that `docker run --user` works.
RUN useradd --create-home --uid 1000 ecosystem \
    && mkdir /cache /work \
    && chmod 1777 /cache /work /home/ecosystem
COPY --from=build /opt/ecosystem /opt/ecosystem
ENV PATH=/opt/ecosystem/bin:$PATH ECOSYSTEM_CACHE=/cache HOME=/home/ecosystem
USER 1000:1000
VOLUME /cache
WORKDIR /work
EXPOSE 8765
ENTRYPOINT ["ecosystem"]
CMD ["--help"]
