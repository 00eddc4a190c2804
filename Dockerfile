# gimp_fast with everything that it reads, dask's cluster and the native CPU library.
#
#   docker build -t gimp-fast .                           torch for CPUs
#   docker build -t gimp-fast --build-arg TORCH=cuda .    torch for NVIDIA GPUs, gigabytes more
#   docker run --rm gimp-fast                             trains on a synthetic cohort
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm
ARG TORCH=cpu

# g++ builds the native library, and Triton needs it when it runs.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY constraints.txt .
# Before the sources: a change there does not install torch again. 2.13.0+cpu is preferred to 2.13.0.
RUN case "$TORCH" in \
        cpu) index="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
        cuda) index="" ;; \
        *) echo "TORCH=$TORCH: expected cpu or cuda" >&2; exit 2 ;; \
    esac \
    && pip install -c constraints.txt $index torch numpy setuptools cmake ninja pybind11
COPY . .
RUN pip install -c constraints.txt --no-build-isolation ".[cluster,formats,tune,wsi]" \
    && gimp-fast doctor \
    && rm -rf /src/build

RUN useradd --create-home gimp
USER gimp
WORKDIR /home/gimp
CMD ["gimp-fast", "train", "--preset", "demo", "--out", "runs/demo"]
