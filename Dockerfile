# syncd: one static binary, no shell, no root.
#
#   docker build -t syncd .
#   docker run -v ./syncd.yaml:/etc/syncd/syncd.yaml:ro -v ./wb.token:/run/secrets/wb:ro \
#     -v syncd-state:/var/lib/syncd --read-only syncd
#
# The files must be readable for uid 65532, and the volume is created as its own.

FROM golang:1.26-bookworm AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=${VERSION}" -o /out/syncd ./cmd/syncd \
 && mkdir -p /out/state

# CA roots, time zones and the user nonroot (65532) come with it.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/syncd /usr/bin/syncd
COPY --from=build --chown=65532:65532 /out/state /var/lib/syncd
VOLUME /var/lib/syncd
USER 65532:65532
STOPSIGNAL SIGTERM
# Inside, syncd listens on 127.0.0.1:9469 unless server.listen says otherwise.
EXPOSE 9469
HEALTHCHECK --interval=30s --timeout=6s --start-period=15s --retries=3 CMD ["/usr/bin/syncd", "healthcheck"]
ENTRYPOINT ["/usr/bin/syncd"]
CMD ["run"]
