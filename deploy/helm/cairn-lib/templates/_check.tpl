{{/*
What the templates refuse. Each message states what to set instead.
*/}}

{{/* Refuses missing settings, and settings of a wrong type. Every template that a chart calls starts with it. */}}
{{- define "cairn-lib.check" -}}
{{- $alias := "values is empty: set alias: cairn for cairn-lib in Chart.yaml, so that .Values.cairn contains its settings" -}}
{{- if not (kindIs "map" .values) -}}
{{- include "cairn-lib.refuse" $alias -}}
{{- end -}}
{{- $maps := list
      "image" "config" "storage" "secrets" "labels" "resources" "securityContext" "probes" "podMonitor"
      "prometheusRule" "dashboard" -}}
{{- $maps = append $maps (ternary "service" "sidecar" (eq (toString .standalone) "true")) -}}
{{- $missing := 0 -}}
{{- range $maps -}}
{{- if not (hasKey $.values .) -}}{{- $missing = add1 $missing -}}{{- end -}}
{{- end -}}
{{- /* A user may set one or two to null. If most are missing, the defaults of this chart were not merged. */ -}}
{{- if gt (int $missing) 3 -}}
{{- include "cairn-lib.refuse" $alias -}}
{{- end -}}
{{- $self := include "cairn-lib.dependencyName" . -}}
{{- if and (ne $self "cairn-lib") (index .root.Values "cairn-lib") -}}
{{- include "cairn-lib.refuse" (printf (cat
      "cairn-lib: set these values under %s, its alias in Chart.yaml: values under cairn-lib are"
      "ignored") $self) -}}
{{- end -}}
{{- $below := list
      "secrets.orgId" "secrets.apiKeys" "secrets.tls" "secrets.clientCa" "secrets.logKey" "podMonitor.labels"
      "podMonitor.annotations" "podMonitor.endpoint" "podMonitor.spec" "prometheusRule.labels" "dashboard.labels"
      "commonLabels" "commonAnnotations" -}}
{{- include "cairn-lib.checkMaps" (dict "settings" .values "paths" (concat $maps $below) "needed" true) -}}
{{- include "cairn-lib.checkMaps" (dict "settings" .values.config "under" "config." "paths" (list
      "tls" "admin" "storage" "queue" "limits" "auth" "ingest" "ingest.agnost" "ingest.otlp" "ingest.default_labels"
      "relay" "shutdown" "log")) -}}
{{- include "cairn-lib.checkEnvironment" . -}}
{{- end -}}

{{/* Refuses values that are no mappings: {settings, paths, under, needed}. Parents precede children in paths. */}}
{{- define "cairn-lib.checkMaps" -}}
{{- range $path := .paths -}}
{{- $node := $.settings -}}
{{- $found := true -}}
{{- range splitList "." $path -}}
{{- if $found -}}
{{- $found = hasKey $node . -}}
{{- $node = index $node . -}}
{{- end -}}
{{- end -}}
{{- if and (or $found $.needed) (not (kindIs "map" $node)) -}}
{{- include "cairn-lib.refuse" (printf "%s%s: expected a mapping, such as {}, found %s" ($.under | default "") $path (toJson $node)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses variables that contradict what the chart sets in other manifests. */}}
{{- define "cairn-lib.checkEnvironment" -}}
{{- $instead := dict
      "CAIRN_STORAGE__MAX_BYTES" "set storage.size, from which the volume and its limits are derived"
      "CAIRN_STORAGE__DATA_DIR" "it is always /var/lib/cairn/data, on the volume"
      "CAIRN_ADMIN__LISTEN" "set adminPort, the port of probes and scrapes"
      "CAIRN_LOG__KEY_FILE" "set secrets.logKey.name, which mounts the file" -}}
{{- if .standalone -}}
{{- $_ := set $instead "CAIRN_LISTEN" "set config.listen, including 0.0.0.0:7600 or [::]:7600, the target of the Service" -}}
{{- $_ := set $instead "CAIRN_INGEST__OTLP__LISTEN" "set service.otlp.enabled: true, which opens the port in all manifests" -}}
{{- end -}}
{{- range .values.extraEnv -}}
{{- if hasKey $instead (toString .name) -}}
{{- include "cairn-lib.refuse" (printf "extraEnv: remove %s: %s" .name (get $instead .name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether clients are authenticated, by a key or by a certificate. */}}
{{- define "cairn-lib.authenticatesClients" -}}
{{- $auth := .values.config.auth | default dict -}}
{{- $secrets := .values.secrets -}}
{{- $byKeys := or $secrets.apiKeys.name $auth.api_keys $auth.api_keys_file -}}
{{- not (empty (or $byKeys $secrets.clientCa.name (.values.config.tls | default dict).client_ca_file)) -}}
{{- end -}}

{{/* The addresses of config.listen, as a YAML list. */}}
{{- define "cairn-lib.listenAddresses" -}}
{{- $listen := .values.config.listen | default list -}}
{{- if not (kindIs "slice" $listen) -}}{{- $listen = splitList "," (toString $listen) -}}{{- end -}}
{{- $addresses := list -}}
{{- range $listen -}}{{- $addresses = append $addresses (toString . | trim) -}}{{- end -}}
{{- $addresses | toYaml -}}
{{- end -}}

{{/*
Refuses a configuration that Cairn would refuse at its start, that contains secrets, or that contradicts what the chart
sets in other manifests.
*/}}
{{- define "cairn-lib.checkConfig" -}}
{{- include "cairn-lib.check" . -}}
{{- $config := .values.config -}}
{{- $auth := $config.auth | default dict -}}
{{- $storage := $config.storage | default dict -}}
{{- $log := $config.log | default dict -}}
{{- $secrets := .values.secrets -}}
{{- if has (int .values.adminPort) (list 7600 4318) -}}
{{- include "cairn-lib.refuse" "adminPort: choose a port other than 7600 and 4318, which receive events" -}}
{{- end -}}
{{- if hasKey $storage "max_bytes" -}}
{{- include "cairn-lib.refuse" (cat
      "config.storage.max_bytes: remove it and set storage.size, from which the volume and its limits are"
      "derived") -}}
{{- end -}}
{{- if hasKey $storage "data_dir" -}}
{{- include "cairn-lib.refuse" "config.storage.data_dir: remove it: it is always /var/lib/cairn/data, on the volume" -}}
{{- end -}}
{{- with ($config.admin | default dict).listen -}}
{{- $listen := toString . -}}
{{- $port := printf ":%d" (int $.values.adminPort) -}}
{{- if or (not (hasSuffix $port $listen)) (hasPrefix "127." $listen) (hasPrefix "[::1]" $listen) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "config.admin.listen: remove it, or set 0.0.0.0%s or [::]%s: probes use the pod's address and"
      "adminPort") $port $port) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $auth "api_keys" -}}
{{- if not (kindIs "slice" $auth.api_keys) -}}
{{- include "cairn-lib.refuse" (cat
      "config.auth.api_keys: expected a list; or set secrets.apiKeys.name, because keys belong in a"
      "Secret") -}}
{{- end -}}
{{- range $auth.api_keys -}}
{{- if not (hasPrefix "sha256:" (toString .)) -}}
{{- include "cairn-lib.refuse" (cat
      "config.auth.api_keys: set secrets.apiKeys.name, or use sha256:HASH: everyone who may read the"
      "ConfigMap could read the key") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* A sidecar that does not start prevents its app from starting. */ -}}
{{- if not (or .standalone $auth.allow_anonymous (eq (include "cairn-lib.authenticatesClients" .) "true")) -}}
{{- $addresses := include "cairn-lib.listenAddresses" . | fromYamlArray -}}
{{- with (($config.ingest | default dict).otlp | default dict).listen -}}{{- $addresses = append $addresses (toString .) -}}{{- end -}}
{{- range $addresses -}}
{{- if not (or (hasPrefix "127." .) (hasPrefix "[::1]:" .) (hasPrefix "unix:" .)) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "config.listen, config.ingest.otlp.listen: set secrets.apiKeys.name, or secrets.tls.name and"
      "secrets.clientCa.name, or, if everyone may send and read, config.auth.allow_anonymous: true: %s is not"
      "a loopback address, and Cairn requires one of these to start") .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey $log "key_file" -}}
{{- include "cairn-lib.refuse" "config.log.key_file: remove it and set secrets.logKey.name, which mounts the file" -}}
{{- end -}}
{{- if and $secrets.clientCa.name (not $secrets.tls.name) -}}
{{- include "cairn-lib.refuse" "secrets.clientCa: set secrets.tls.name, too: client certificates require TLS" -}}
{{- end -}}
{{- if and $secrets.logKey.name (not $log.origin) (not .origin) -}}
{{- include "cairn-lib.refuse" "secrets.logKey: set config.log.origin, too: the name of the log that the key belongs to" -}}
{{- end -}}
{{- if and (or $secrets.logKey.name $log.origin) (ne (include "cairn-lib.onClaim" .) "true") -}}
{{- include "cairn-lib.refuse" (cat
      "config.log.origin, secrets.logKey: set storage.existingClaim, too, or remove them: an emptyDir is"
      "deleted with its pod, and the next pod would sign another history under the same name") -}}
{{- end -}}
{{- end -}}
