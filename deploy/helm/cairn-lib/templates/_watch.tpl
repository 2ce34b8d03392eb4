{{/*
What the operators of Prometheus and Grafana pick up. Each is nothing unless it is enabled.
*/}}

{{/*
Scrapes the pods. It may take `matchLabels`: which of the pods with a Cairn are meant. Without, it is all of the
namespace, and two releases there would scrape each pod twice.
*/}}
{{- define "cairn-lib.podMonitor" -}}
{{- include "cairn-lib.check" . -}}
{{- if .values.podMonitor.enabled -}}
{{- $kind := ternary "standalone" "sidecar" (eq (toString .standalone) "true") -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "cairn-lib.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "cairn-lib.withLabels" (dict "all" . "labels" .values.podMonitor.labels) | nindent 4 }}
spec:
  selector:
    matchLabels:
      {{- merge (dict "cairn" $kind) (.matchLabels | default dict | deepCopy) | toYaml | nindent 6 }}
  podMetricsEndpoints:
    - port: cairn-admin
      path: /metrics
      interval: {{ .values.podMonitor.interval }}
{{- end -}}
{{- end -}}

{{/* Tells when something is wrong, by files/alerts.yaml. */}}
{{- define "cairn-lib.prometheusRule" -}}
{{- include "cairn-lib.check" . -}}
{{- if .values.prometheusRule.enabled -}}
{{- $rules := include "cairn-lib.file" (dict "root" .root "file" "files/alerts.yaml") | fromYaml -}}
{{- with .values.prometheusRule.runbookBase -}}
{{- range $group := $rules.groups -}}
{{- range $rule := $group.rules -}}
{{- with ($rule.annotations | default dict).runbook_url -}}
{{- if hasPrefix "deploy/" . -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s" (trimSuffix "/" $.values.prometheusRule.runbookBase) .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ include "cairn-lib.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "cairn-lib.withLabels" (dict "all" . "labels" .values.prometheusRule.labels) | nindent 4 }}
spec:
  {{- dict "groups" $rules.groups | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Shows files/dashboard.json. */}}
{{- define "cairn-lib.dashboard" -}}
{{- include "cairn-lib.check" . -}}
{{- if .values.dashboard.enabled -}}
{{- $labels := merge (dict "grafana_dashboard" "1") (deepCopy .values.dashboard.labels) -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "cairn-lib.name" . }}-dashboard
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "cairn-lib.withLabels" (dict "all" . "labels" $labels) | nindent 4 }}
data:
  cairn.json: |
    {{- include "cairn-lib.file" (dict "root" .root "file" "files/dashboard.json") | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* The labels of everything here, under those that were asked for: {all, labels}. */}}
{{- define "cairn-lib.withLabels" -}}
{{- merge (deepCopy .labels) (include "cairn-lib.labels" .all | fromYaml) | toYaml -}}
{{- end -}}
