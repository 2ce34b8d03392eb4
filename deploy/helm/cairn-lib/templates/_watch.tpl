{{/*
Objects for the Prometheus Operator and Grafana. Each is empty unless it is enabled.
*/}}

{{/*
Scrapes the pods. `matchLabels` may restrict it to some of the pods that run Cairn. Without it, all of them in the
namespace are selected, and two releases would scrape each pod twice.
*/}}
{{- define "cairn-lib.podMonitor" -}}
{{- include "cairn-lib.check" . -}}
{{- if .values.podMonitor.enabled -}}
{{- $kind := ternary "standalone" "sidecar" (eq (toString .standalone) "true") -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  {{- $monitor := .values.podMonitor }}
  {{- $name := include "cairn-lib.name" . }}
  {{- include "cairn-lib.metadata" (dict "all" . "name" $name "labels" $monitor.labels "annotations" $monitor.annotations) | nindent 2 }}
spec:
  {{- $endpoint := dict "port" "cairn-admin" "path" "/metrics" "interval" $monitor.interval }}
  {{- range $field := list "scrapeTimeout" "relabelings" "metricRelabelings" }}
  {{- with get $monitor $field }}
  {{- $_ := set $endpoint $field . }}
  {{- end }}
  {{- end }}
  {{- $selected := merge (dict "cairn" $kind) (.matchLabels | default dict | deepCopy) }}
  {{- $spec := dict "selector" (dict "matchLabels" $selected) }}
  {{- $_ := set $spec "podMetricsEndpoints" (list (mergeOverwrite $endpoint (deepCopy $monitor.endpoint))) }}
  {{- mergeOverwrite $spec (deepCopy $monitor.spec) | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The alerting rules of files/alerts.yaml. */}}
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
  {{- $name := include "cairn-lib.name" . }}
  {{- include "cairn-lib.metadata" (dict "all" . "name" $name "labels" .values.prometheusRule.labels) | nindent 2 }}
spec:
  {{- dict "groups" $rules.groups | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* The dashboard of files/dashboard.json, for Grafana. */}}
{{- define "cairn-lib.dashboard" -}}
{{- include "cairn-lib.check" . -}}
{{- if .values.dashboard.enabled -}}
{{- $labels := merge (dict "grafana_dashboard" "1") (deepCopy .values.dashboard.labels) -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- $name := printf "%s-dashboard" (include "cairn-lib.name" .) }}
  {{- include "cairn-lib.metadata" (dict "all" . "name" $name "labels" $labels) | nindent 2 }}
data:
  cairn.json: |
    {{- include "cairn-lib.file" (dict "root" .root "file" "files/dashboard.json") | nindent 4 }}
{{- end -}}
{{- end -}}
