{{/*
What the templates of this chart share. What goes into a pod is made by cairn-lib, as in a sidecar.
*/}}

{{- define "cairn.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- /* A StatefulSet puts a hash behind its name, and 63 characters are all that a label takes. */ -}}
{{- $suffixed := printf "%s-cairn" (.Release.Name | trunc 46 | trimSuffix "-") -}}
{{- ternary .Release.Name $suffixed (contains "cairn" .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cairn.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cairn.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* What never changes: a StatefulSet cannot change its selector, nor the labels of its claims. */}}
{{- define "cairn.selector" -}}
app.kubernetes.io/name: cairn
app.kubernetes.io/instance: {{ .Release.Name }}
cairn: standalone
{{- end -}}

{{/* What cairn-lib's templates are told besides the settings, as YAML. */}}
{{- define "cairn.told" -}}
standalone: true
name: {{ include "cairn.fullname" . }}
drain:
  after: {{ .Values.drainAfter }}
  within: {{ .Values.drainWithin }}
{{- if .Values.service.otlp.enabled }}
otlpListen: 0.0.0.0:4318
{{- end }}
{{- with .Values.logOriginPrefix }}
origin: {{ trimSuffix "/" . }}/$(POD_NAME)
{{- end }}
matchLabels:
  {{- include "cairn.selector" . | nindent 2 }}
{{- end -}}

{{/* Refuses what cannot work. */}}
{{- define "cairn.check" -}}
{{- include "cairn-lib.check" (dict "root" . "values" .Values "standalone" true) -}}
{{- include "cairn-lib.checkMaps" (dict "settings" .Values "needed" true "paths" (list
      "service.otlp" "networkPolicy" "networkPolicy.egress" "podDisruptionBudget" "serviceAccount" "podLabels")) -}}
{{- $config := .Values.config -}}
{{- $auth := $config.auth | default dict -}}
{{- $log := $config.log | default dict -}}
{{- $secrets := .Values.secrets -}}
{{- if not (or $auth.allow_anonymous (eq (include "cairn-lib.asksCallers" (dict "values" .Values)) "true")) -}}
{{- include "cairn-lib.refuse" (cat
      "it listens for the whole network: write secrets.apiKeys.name, or secrets.tls.name and"
      "secrets.clientCa.name, or, if everybody may send and read, config.auth.allow_anonymous: true") -}}
{{- end -}}
{{- with include "cairn-lib.listens" (dict "values" .Values) | fromYamlArray -}}
{{- $served := false -}}
{{- range . -}}
{{- if not (or (not (hasSuffix ":7600" .)) (hasPrefix "127." .) (hasPrefix "[::1]" .)) -}}{{- $served = true -}}{{- end -}}
{{- end -}}
{{- if not $served -}}
{{- include "cairn-lib.refuse" (cat
      "config.listen: remove it, or have 0.0.0.0:7600 or [::]:7600 among it: the Service sends to port 7600"
      "of the pod") -}}
{{- end -}}
{{- end -}}
{{- if hasKey (($config.ingest | default dict).otlp | default dict) "listen" -}}
{{- include "cairn-lib.refuse" (cat
      "config.ingest.otlp.listen: remove it, and write service.otlp.enabled: true: that opens the port"
      "everywhere") -}}
{{- end -}}
{{- if and .Values.logOriginPrefix $log.origin -}}
{{- include "cairn-lib.refuse" "logOriginPrefix, config.log.origin: write one of them: both name the log" -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (or $log.origin $secrets.logKey.name) -}}
{{- include "cairn-lib.refuse" (cat
      "config.log.origin, secrets.logKey: remove them, and write logOriginPrefix, or replicas: 1: replicas"
      "are different logs, and several histories under one name and key are what Cairn is there to show") -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- /* What is in the file is the same for all: only in the environment does $(POD_NAME) stand for something. */ -}}
{{- $isShared := not (empty $log.checkpoint_file) -}}
{{- range .Values.extraEnv -}}
{{- if eq (toString .name) "CAIRN_LOG__CHECKPOINT_FILE" -}}{{- $isShared = not (contains "$(POD_NAME)" (toString .value)) -}}{{- end -}}
{{- end -}}
{{- if $isShared -}}
{{- include "cairn-lib.refuse" (cat
      "config.log.checkpoint_file: remove it, and write extraEnv CAIRN_LOG__CHECKPOINT_FILE with $(POD_NAME) in"
      "its path, or replicas: 1: each replica has a checkpoint of its own") -}}
{{- end -}}
{{- end -}}
{{- $cairn := merge (dict "root" . "values" .Values) (include "cairn.told" . | fromYaml) -}}
{{- $grace := ((include "cairn-lib.config" $cairn | fromYaml).shutdown | default dict).grace | default "20s" -}}
{{- $needed := include "cairn-lib.milliseconds" (dict "key" "config.shutdown.grace" "time" $grace) | int -}}
{{- $needed = add $needed (include "cairn-lib.milliseconds" (dict "key" "drainWithin" "time" .Values.drainWithin) | int) 5000 -}}
{{- if lt (mul 1000 (int .Values.terminationGracePeriodSeconds)) $needed -}}
{{- include "cairn-lib.refuse" (printf "terminationGracePeriodSeconds: write at least %d: drainWithin (%s), shutdown.grace (%s), and 5s to close the database" (div (add $needed 999) 1000) .Values.drainWithin $grace) -}}
{{- end -}}
{{- end -}}
