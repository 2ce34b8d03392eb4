{{/*
The app's pod, as it would be without Cairn, and three settings that only the pod can contain: they are numbered.
*/}}
{{- define "example.pod" -}}
metadata:
  labels:
    {{- include "example.selector" . | nindent 4 }}
spec:
  # 1. Neither the app nor Cairn uses the Kubernetes API, so no token is mounted.
  automountServiceAccountToken: false
  # 2. The time that the app needs to end (30), plus the time of Cairn after it to answer requests in flight and to
  #    relay its backlog (shutdown.grace: 20), and 5 to close the database. A native sidecar receives SIGTERM after the
  #    app has ended, and has only the time that is left. A shorter time loses nothing: what was answered is on disk.
  terminationGracePeriodSeconds: 55
  # 3. The group that owns mounted secrets and claims: Cairn runs as user and group 10001, and secrets have mode 0440.
  #    All containers of the pod are in that group, but only Cairn's container mounts these volumes.
  #    OnRootMismatch, because the kubelet would otherwise make the private files of a ledger on a claim accessible to
  #    the group at each start.
  securityContext:
    runAsNonRoot: true
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: my-agent
      image: {{ .Values.image }}
      env:
        # Loopback is shared by the containers of the pod, and not reachable from outside: no keys, no TLS and no
        # Service are needed. Not localhost, which some clients resolve to ::1 first, where nothing listens.
        - name: OTEL_EXPORTER_OTLP_ENDPOINT
          value: http://127.0.0.1:7600
        - name: OTEL_EXPORTER_OTLP_PROTOCOL
          value: http/protobuf
        # Cairn accepts spans and log records. It answers 404 for metrics, which exporters report as an error.
        - name: OTEL_METRICS_EXPORTER
          value: none
        # The agent of the events whose spans do not name one.
        - name: OTEL_SERVICE_NAME
          value: my-agent
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10002
        runAsGroup: 10002
        allowPrivilegeEscalation: false
        capabilities:
          drop: [ALL]
{{- end -}}

{{- define "example.selector" -}}
app.kubernetes.io/name: example
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
