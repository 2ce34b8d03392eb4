{{/*
The app's pod, as it would be without Cairn, and three things that only the pod can say: they are numbered.
*/}}
{{- define "example.pod" -}}
metadata:
  labels:
    {{- include "example.selector" . | nindent 4 }}
spec:
  # 1. Neither the app nor Cairn asks the API for anything, so there is no token to steal.
  automountServiceAccountToken: false
  # 2. What the app needs to end (30), and after it what Cairn may take to answer what is in flight and to send its
  #    backlog on (shutdown.grace: 20), and 5 to close the database. A native sidecar gets its SIGTERM when the app has
  #    ended, and has only what is left by then. Nothing is lost without it: what was answered is on disk.
  terminationGracePeriodSeconds: 55
  # 3. The group that secrets and claims belong to: Cairn runs as user and group 10001, and secrets are 0440.
  #    All containers of the pod are in that group, but only Cairn's mounts these volumes.
  #    OnRootMismatch, because the kubelet would otherwise open the files of a ledger on a claim, which are for nobody
  #    else, to the group at each start.
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
        # Containers of a pod share its loopback, and nobody else reaches it: no keys, no TLS, no Service. Not localhost,
        # which some clients take for ::1 first: nobody listens there.
        - name: OTEL_EXPORTER_OTLP_ENDPOINT
          value: http://127.0.0.1:7600
        - name: OTEL_EXPORTER_OTLP_PROTOCOL
          value: http/protobuf
        # Cairn takes spans and log records. For metrics it answers 404, which exporters complain of.
        - name: OTEL_METRICS_EXPORTER
          value: none
        # Whose events they are, where spans do not say.
        - name: OTEL_SERVICE_NAME
          value: my-agent
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10002
        allowPrivilegeEscalation: false
        capabilities:
          drop: [ALL]
{{- end -}}

{{- define "example.selector" -}}
app.kubernetes.io/name: example
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
