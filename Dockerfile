# docker build -t ditmoe . ; docker run --rm -v "$PWD:/work" ditmoe -c dress -n 4 -o out/
FROM debian:12 AS build
WORKDIR /src
COPY . .
RUN scripts/setup.sh build && make release && make install PREFIX=/opt/ditmoe

FROM debian:12
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libcjson1 libpng16-16 \
    zlib1g libssl3 libjpeg62-turbo libgomp1 libopenblas0-openmp liblapacke && \
  rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/ditmoe /usr/local
RUN ldconfig
WORKDIR /work
ENTRYPOINT ["ditmoe-sample"]
