{{/*
cairn.yaml: the settings that the chart determines, overridden by the user's `config`.
*/}}

{{/* The text of cairn.yaml. */}}
{{- define "cairn-lib.config" -}}
{{- include "cairn-lib.checkConfig" . -}}
{{- $secrets := .values.secrets -}}
{{- $listen := ternary "0.0.0.0:7600" "127.0.0.1:7600" (eq (toString .standalone) "true") -}}
{{- $size := printf "%sMiB" (include "cairn-lib.sizeMi" .) -}}
{{- $config := dict
      "listen" $listen
      "admin" (dict "listen" (printf "0.0.0.0:%d" (int .values.adminPort)))
      "storage" (dict "data_dir" "/var/lib/cairn/data" "max_bytes" $size) -}}
{{- with .otlpListen -}}
{{- $_ := set $config "ingest" (dict "otlp" (dict "listen" .)) -}}
{{- end -}}
{{- if $secrets.orgId.name -}}
{{- $_ := set $config "relay" (dict "agnost" (dict "org_id_file" "/etc/cairn/secrets/org-id")) -}}
{{- end -}}
{{- if $secrets.apiKeys.name -}}
{{- $_ := set $config "auth" (dict "api_keys_file" "/etc/cairn/secrets/api-keys") -}}
{{- end -}}
{{- if $secrets.tls.name -}}
{{- $tls := dict "cert_file" "/etc/cairn/tls/tls.crt" "key_file" "/etc/cairn/tls/tls.key" -}}
{{- if $secrets.clientCa.name -}}
{{- $_ := set $tls "client_ca_file" "/etc/cairn/tls/client-ca.crt" -}}
{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- end -}}
{{- if $secrets.logKey.name -}}
{{- $_ := set $config "log" (dict "key_file" "/etc/cairn/secrets/log.key") -}}
{{- end -}}
{{- /* The next pod sends what is left from the claim: an upstream that is away does not delay the end of this one. */ -}}
{{- if eq (include "cairn-lib.onClaim" .) "true" -}}
{{- $_ := set $config "shutdown" (dict "relay_time" "2s") -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .values.config) | toYaml -}}
{{- end -}}

{{/* The ConfigMap that contains it. */}}
{{- define "cairn-lib.configMap" -}}
{{- include "cairn-lib.check" . -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "cairn-lib.metadata" (dict "all" . "name" (include "cairn-lib.name" .)) | nindent 2 }}
data:
  cairn.yaml: |
    {{- include "cairn-lib.config" . | nindent 4 }}
{{- end -}}
