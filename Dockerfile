# `bgert serve` on CPUs:
#   docker build -t bgert .
#   docker run --rm -p 8080:8080 -v "$PWD/bge-small-en-v1.5:/models/bge-small-en-v1.5:ro" bgert
# An image with its model: --build-arg MODEL=bge-small-en-v1.5, a folder of `bgert export` inside the build context, as
# /models/model. With several folders: -e BGERT_FOLDERS="/models/a /models/b".
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ cmake && rm -rf /var/lib/apt/lists/*
COPY . /src
ARG MODEL=
RUN pip wheel --no-cache-dir --no-deps -w /wheels /src
RUN mkdir -p /models && if [ -n "$MODEL" ]; then cp -r "/src/$MODEL" /models/model; fi

FROM python:3.12-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/*.whl)[cpu,serve]" && rm -rf /wheels && useradd --create-home bgert
COPY --from=build --chown=bgert /models /models
USER bgert
ENV BGERT_HOST=0.0.0.0 BGERT_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"BGERT_PORT\"]}/health', timeout=4)"]
STOPSIGNAL SIGTERM
# Without BGERT_FOLDERS, whatever lies in /models is served.
CMD ["sh", "-c", "BGERT_FOLDERS=\"${BGERT_FOLDERS:-$(echo /models/*)}\" exec bgert serve"]
