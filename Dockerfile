# Under the Endpoint in a container: JupyterLab on port 8888, with the bundled model prepared.
#
#   docker build -t under-the-endpoint .
#   docker run --rm -p 127.0.0.1:8888:8888 under-the-endpoint
#
# With CUDA, on a base that has the CUDA compiler and Python 3.11 or newer, run with `--gpus all`:
#
#   docker build -t under-the-endpoint --build-arg ACCELERATOR=cuda --build-arg BASE=nvidia/cuda:TAG-devel-ubuntu24.04 .
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# cpu or cuda: a build has no GPU to look for.
ARG ACCELERATOR=cpu
# Not for the processor of the builder, but for any that has AVX2: an image is moved.
ARG CMAKE_ARGS=-DGGML_NATIVE=OFF

RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        bubblewrap build-essential ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --shell /bin/bash reader

USER reader
WORKDIR /home/reader/course
COPY --chown=reader:reader . .
RUN PIP_NO_CACHE_DIR=1 make setup ACCELERATOR=${ACCELERATOR}

ENV PATH=/home/reader/course/.venv/bin:$PATH JUPYTER_PORT=8888
EXPOSE 8888
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD python -c \
    "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ[\"JUPYTER_PORT\"]}/api', timeout=4)"
# Not `make lab`: on another processor that would compile llama.cpp again.
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--ServerApp.root_dir=/home/reader/course", "lessons/00_start.ipynb"]
