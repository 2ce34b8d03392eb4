{{/*
What the templates refuse, each with a word that says what to write instead.
*/}}

{{/* Refuses settings that are not there, or of another kind. What a chart calls begins with it. */}}
{{- define "cairn-lib.check" -}}
{{- $alias := "values is empty: write alias: cairn beside cairn-lib in Chart.yaml, so that .Values.cairn are its settings" -}}
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
{{- /* Somebody may write null for one or two. Where most are missing, the defaults of this chart never came. */ -}}
{{- if gt (int $missing) 3 -}}
{{- include "cairn-lib.refuse" $alias -}}
{{- end -}}
{{- $self := include "cairn-lib.self" . -}}
{{- if and (ne $self "cairn-lib") (index .root.Values "cairn-lib") -}}
{{- include "cairn-lib.refuse" (printf (cat
      "cairn-lib: write these settings under %s, its alias in Chart.yaml: under cairn-lib nothing reads"
      "them") $self) -}}
{{- end -}}
{{- $below := list
      "secrets.orgId" "secrets.apiKeys" "secrets.tls" "secrets.clientCa" "secrets.logKey" "podMonitor.labels"
      "prometheusRule.labels" "dashboard.labels" -}}
{{- include "cairn-lib.checkMaps" (dict "settings" .values "paths" (concat $maps $below) "needed" true) -}}
{{- include "cairn-lib.checkMaps" (dict "settings" .values.config "under" "config." "paths" (list
      "tls" "admin" "storage" "queue" "limits" "auth" "ingest" "ingest.agnost" "ingest.otlp" "ingest.default_labels"
      "relay" "shutdown" "log")) -}}
{{- include "cairn-lib.checkEnvironment" . -}}
{{- end -}}

{{/* Refuses what is no map: {settings, paths}, and needed where it has to be there. A path comes behind those above it. */}}
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
{{- include "cairn-lib.refuse" (printf "%s%s: write settings under it, or {}, not %s" ($.under | default "") $path (toJson $node)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses variables that would override what the chart sets around Cairn. */}}
{{- define "cairn-lib.checkEnvironment" -}}
{{- $instead := dict
      "CAIRN_STORAGE__MAX_BYTES" "write storage.size: the volume and its limits follow from that"
      "CAIRN_STORAGE__DATA_DIR" "it is /var/lib/cairn/data, where the volume is"
      "CAIRN_ADMIN__LISTEN" "write adminPort: probes and scrapes come there"
      "CAIRN_LOG__KEY_FILE" "write secrets.logKey.name: that brings the file" -}}
{{- if .standalone -}}
{{- $_ := set $instead "CAIRN_LISTEN" "write config.listen, with 0.0.0.0:7600 or [::]:7600 among it: the Service sends there" -}}
{{- $_ := set $instead "CAIRN_INGEST__OTLP__LISTEN" "write service.otlp.enabled: true: that opens the port everywhere" -}}
{{- end -}}
{{- range .values.extraEnv -}}
{{- if hasKey $instead (toString .name) -}}
{{- include "cairn-lib.refuse" (printf "extraEnv: remove %s: %s" .name (get $instead .name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether callers have to show something: a key, or a certificate. */}}
{{- define "cairn-lib.asksCallers" -}}
{{- $auth := .values.config.auth | default dict -}}
{{- $secrets := .values.secrets -}}
{{- $byKeys := or $secrets.apiKeys.name $auth.api_keys $auth.api_keys_file -}}
{{- not (empty (or $byKeys $secrets.clientCa.name (.values.config.tls | default dict).client_ca_file)) -}}
{{- end -}}

{{/* The addresses of config.listen, as a YAML list. */}}
{{- define "cairn-lib.listens" -}}
{{- $listen := .values.config.listen | default list -}}
{{- if not (kindIs "slice" $listen) -}}{{- $listen = splitList "," (toString $listen) -}}{{- end -}}
{{- $addresses := list -}}
{{- range $listen -}}{{- $addresses = append $addresses (toString . | trim) -}}{{- end -}}
{{- $addresses | toYaml -}}
{{- end -}}

{{/* Refuses what Cairn would refuse at its start, what belongs in a Secret, or what would contradict what the chart sets around it. */}}
{{- define "cairn-lib.checkConfig" -}}
{{- include "cairn-lib.check" . -}}
{{- $config := .values.config -}}
{{- $auth := $config.auth | default dict -}}
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
{{- $listen := toString . -}}
{{- $port := printf ":%d" (int $.values.adminPort) -}}
{{- if or (not (hasSuffix $port $listen)) (hasPrefix "127." $listen) (hasPrefix "[::1]" $listen) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "config.admin.listen: remove it, or write 0.0.0.0%s or [::]%s: probes come to the pod's address, and"
      "adminPort says the port") $port $port) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $auth "api_keys" -}}
{{- if not (kindIs "slice" $auth.api_keys) -}}
{{- include "cairn-lib.refuse" "config.auth.api_keys: write a list, or secrets.apiKeys.name: keys belong in a Secret" -}}
{{- end -}}
{{- range $auth.api_keys -}}
{{- if not (hasPrefix "sha256:" (toString .)) -}}
{{- include "cairn-lib.refuse" (cat
      "config.auth.api_keys: write secrets.apiKeys.name, or sha256:HASH: everybody who may look at the"
      "ConfigMap would see the key") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* A sidecar that does not start keeps its app from starting. */ -}}
{{- if not (or .standalone $auth.allow_anonymous (eq (include "cairn-lib.asksCallers" .) "true")) -}}
{{- $addresses := include "cairn-lib.listens" . | fromYamlArray -}}
{{- with (($config.ingest | default dict).otlp | default dict).listen -}}{{- $addresses = append $addresses (toString .) -}}{{- end -}}
{{- range $addresses -}}
{{- if not (or (hasPrefix "127." .) (hasPrefix "[::1]:" .) (hasPrefix "unix:" .)) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "config.listen, config.ingest.otlp.listen: write secrets.apiKeys.name, or secrets.tls.name and"
      "secrets.clientCa.name, or, if everybody may send and read, config.auth.allow_anonymous: true: %s is no"
      "loopback, and Cairn does not start there without") .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey $log "key_file" -}}
{{- include "cairn-lib.refuse" "config.log.key_file: remove it, and write secrets.logKey.name: that brings the file" -}}
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
