# The command line in an image. See docs/guide/deploy.md.
#   docker build --tag fewframes .                                              labels videos on the CPU
#   docker build --tag fewframes:serve --build-arg EXTRAS='[serve]' .           answers over HTTP
#   docker build --tag fewframes:cuda --build-arg EXTRAS='[serve,train]' .      with torch, on a GPU
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=""
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /opt/fewframes && /opt/fewframes/bin/pip install --no-cache-dir ".${EXTRAS}"

FROM python:${PYTHON}-slim
COPY --from=build /opt/fewframes /opt/fewframes
# A home of its own, because trained models and frame embeddings are cached there.
RUN useradd --uid 1000 --create-home fewframes
ENV PATH="/opt/fewframes/bin:${PATH}" PYTHONUNBUFFERED=1
USER 1000
WORKDIR /videos
EXPOSE 8000
ENTRYPOINT ["fewframes"]
CMD ["--help"]
