{{/*
cairn.yaml: what the chart knows, and over it what the user wrote under `config`.
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
{{- mergeOverwrite $config (deepCopy .values.config) | toYaml -}}
{{- end -}}

{{/* The ConfigMap with it. */}}
{{- define "cairn-lib.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "cairn-lib.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "cairn-lib.labels" . | nindent 4 }}
data:
  cairn.yaml: |
    {{- include "cairn-lib.config" . | nindent 4 }}
{{- end -}}

{{/* Refuses what Cairn would refuse at its start, or what would contradict what the chart sets around it. */}}
{{- define "cairn-lib.checkConfig" -}}
{{- $config := .values.config -}}
{{- $storage := $config.storage | default dict -}}
{{- $log := $config.log | default dict -}}
{{- $secrets := .values.secrets -}}
{{- if has (int .values.adminPort) (list 7600 4318) -}}
{{- include "cairn-lib.refuse" "adminPort: write another than 7600 and 4318: events come in there" -}}
{{- end -}}
{{- if hasKey $storage "max_bytes" -}}
{{- include "cairn-lib.refuse" (cat
      "config.storage.max_bytes: remove it, and write storage.size: the volume and its limits follow from"
      "that") -}}
{{- end -}}
{{- if hasKey $storage "data_dir" -}}
{{- include "cairn-lib.refuse" "config.storage.data_dir: remove it: it is /var/lib/cairn/data, where the volume is" -}}
{{- end -}}
{{- with ($config.admin | default dict).listen -}}
{{- $port := printf ":%d" (int $.values.adminPort) -}}
{{- if or (not (hasSuffix $port .)) (hasPrefix "127." .) (hasPrefix "[::1]" .) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "config.admin.listen: remove it, or write 0.0.0.0%s or [::]%s: probes come to the pod's address, and"
      "adminPort says the port") $port $port) -}}
{{- end -}}
{{- end -}}
{{- if and $secrets.clientCa.name (not $secrets.tls.name) -}}
{{- include "cairn-lib.refuse" "secrets.clientCa: write secrets.tls.name, too: there are no client certificates without TLS" -}}
{{- end -}}
{{- if and $secrets.logKey.name (not $log.origin) (not .origin) -}}
{{- include "cairn-lib.refuse" "secrets.logKey: write config.log.origin, too: the name of the log that the key was made for" -}}
{{- end -}}
{{- if and (or $secrets.logKey.name $log.origin) (ne (include "cairn-lib.onClaim" .) "true") -}}
{{- include "cairn-lib.refuse" (cat
      "config.log.origin, secrets.logKey: write storage.existingClaim, too, or remove them: an emptyDir"
      "ends with its pod, and the next one would sign another history under the same name") -}}
{{- end -}}
{{- end -}}
