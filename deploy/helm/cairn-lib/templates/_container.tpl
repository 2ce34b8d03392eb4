{{/*
Cairn's container, as a native sidecar and as an ordinary container.
*/}}

{{/* A native sidecar: an init container that keeps running. It receives SIGTERM after the app has ended. */}}
{{- define "cairn-lib.initContainer" -}}
{{- include "cairn-lib.base" . }}
restartPolicy: Always
{{- end -}}

{{/* An ordinary container. It receives SIGTERM together with the others, so it waits while they still send. */}}
{{- define "cairn-lib.container" -}}
{{- include "cairn-lib.base" . }}
lifecycle:
  preStop:
    exec:
      {{- $drain := include "cairn-lib.drain" . | fromYaml }}
      command: [/cairn, drain, --after, {{ $drain.after }}, --within, {{ $drain.within }}]
{{- end -}}

{{/* How long its preStop hook waits: {after, within}. */}}
{{- define "cairn-lib.drain" -}}
{{- if .drain -}}
{{- toYaml .drain -}}
{{- else -}}
{{- dict "after" .values.sidecar.drainAfter "within" .values.sidecar.drainWithin | toYaml -}}
{{- end -}}
{{- end -}}

{{/* The part that both have in common. */}}
{{- define "cairn-lib.base" -}}
{{- include "cairn-lib.check" . -}}
{{- $values := .values -}}
name: cairn
image: {{ include "cairn-lib.image" . }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args: [serve]
ports:
  {{- if .standalone }}
  - name: cairn
    containerPort: 7600
  {{- if .otlpListen }}
  - name: cairn-otlp
    containerPort: 4318
  {{- end }}
  {{- end }}
  - name: cairn-admin
    containerPort: {{ int $values.adminPort }}
env:
  {{- include "cairn-lib.env" . | trim | nindent 2 }}
{{- with $values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $kind, $probe := $values.probes }}
{{- with $probe }}
{{ $kind }}Probe:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
resources:
  {{- include "cairn-lib.resources" . | nindent 2 }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
volumeMounts:
  - name: cairn-config
    mountPath: /etc/cairn
    readOnly: true
  - name: cairn-data
    mountPath: /var/lib/cairn
  - name: cairn-tmp
    mountPath: /tmp
  {{- with $values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/*
The names of the pod come first, because $(POD_NAME) is only replaced in variables that follow it: extraEnv may use them. The
environment overrides the file, so a label that the user sets in `config` is left out here.
*/}}
{{- define "cairn-lib.env" -}}
- name: CAIRN_CONFIG
  value: /etc/cairn/cairn.yaml
{{- $fields := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "NODE_NAME" "spec.nodeName" -}}
{{- range $name, $field := $fields }}
- name: {{ $name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $field }}
{{- end }}
{{- $labels := .values.labels }}
{{- $own := (.values.config.ingest | default dict).default_labels | default dict }}
{{- range $label, $field := dict "pod" "metadata.name" "namespace" "metadata.namespace" "node" "spec.nodeName" }}
{{- if and (get $labels $label) (not (hasKey $own $label)) }}
- name: CAIRN_INGEST__DEFAULT_LABELS__{{ upper $label }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $field }}
{{- end }}
{{- end }}
{{- with .origin }}
- name: CAIRN_LOG__ORIGIN
  value: {{ . | quote }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
The request of ephemeral storage equals its limit: a node that runs out of it first evicts pods that use more than they
requested, and an emptyDir is deleted with its pod.
*/}}
{{- define "cairn-lib.resources" -}}
{{- $computed := printf "%sMi" (include "cairn-lib.ephemeralMi" .) -}}
{{- $limit := get (.values.resources.limits | default dict) "ephemeral-storage" | default $computed -}}
{{- $storage := dict "ephemeral-storage" $limit -}}
{{- $both := dict "requests" $storage "limits" (deepCopy $storage) -}}
{{- mergeOverwrite $both (deepCopy .values.resources) | toYaml -}}
{{- end -}}
