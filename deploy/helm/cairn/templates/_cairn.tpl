{{/*
Shared templates of this chart. cairn-lib renders the container and the volumes, as for a sidecar.
*/}}

{{/* The name of the app: the label app.kubernetes.io/name, and the end of the names of all objects. */}}
{{- define "cairn.app" -}}
{{- .Values.nameOverride | default "cairn" -}}
{{- end -}}

{{- define "cairn.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- /* A StatefulSet appends a hash to its name in a label, and a label has at most 63 characters. */ -}}
{{- $app := include "cairn.app" . -}}
{{- $suffixed := printf "%s-%s" (.Release.Name | trunc (sub 51 (len $app) | int) | trimSuffix "-") $app -}}
{{- ternary .Release.Name $suffixed (contains $app .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cairn.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cairn.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* Labels that never change: a StatefulSet can change neither its selector nor the labels of its claims. */}}
{{- define "cairn.selector" -}}
app.kubernetes.io/name: {{ include "cairn.app" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
cairn: standalone
{{- end -}}

{{/* The arguments of cairn-lib's templates besides root and values, as YAML. */}}
{{- define "cairn.arguments" -}}
standalone: true
name: {{ include "cairn.fullname" . }}
app: {{ include "cairn.app" . }}
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

{{/* The protocol of the API, for what connects to it: http or https. */}}
{{- define "cairn.protocol" -}}
{{- $certificate := .Values.secrets.tls.name | default (.Values.config.tls | default dict).cert_file -}}
{{- ternary "https" "http" (not (empty $certificate)) -}}
{{- end -}}

{{/*
The metadata of an object: {root, name}, and optionally {suffix, labels, annotations}. The name is that of all objects with the
suffix.
*/}}
{{- define "cairn.metadata" -}}
{{- $all := merge (dict "root" .root "values" .root.Values) (include "cairn.arguments" .root | fromYaml) -}}
{{- $name := printf "%s%s" (.name | default (include "cairn.fullname" .root)) (.suffix | default "") -}}
{{- include "cairn-lib.metadata" (dict "all" $all "name" $name "labels" .labels "annotations" .annotations) -}}
{{- end -}}

{{/*
Refuses an upgrade that would give the StatefulSet another name, and so new, empty ledgers, or claims of another size, which
Kubernetes refuses after Helm has changed the configuration already.
*/}}
{{- define "cairn.checkUpgrade" -}}
{{- $name := include "cairn.fullname" . -}}
{{- $cairn := dict "values" .Values -}}
{{- if .Release.IsUpgrade -}}
{{- range (lookup "apps/v1" "StatefulSet" .Release.Namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) (eq (get .spec.selector.matchLabels "cairn") "standalone") -}}
{{- if ne .metadata.name $name -}}
{{- include "cairn-lib.refuse" (printf "nameOverride, fullnameOverride: the ledgers of this release belong to the StatefulSet %s, and %s would begin new, empty ones" .metadata.name $name) -}}
{{- end -}}
{{- $claim := (first .spec.volumeClaimTemplates).spec.resources.requests.storage -}}
{{- $old := include "cairn-lib.sizeMi" (dict "values" (dict "storage" (dict "size" $claim))) | int -}}
{{- if ne $old (include "cairn-lib.volumeMi" $cairn | int) -}}
{{- include "cairn-lib.refuse" (printf "storage.size: Kubernetes cannot change the claims of a StatefulSet, which have %s: enlarge them, run kubectl delete statefulset %s --cascade=orphan, and upgrade again" $claim $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses settings that cannot work. */}}
{{- define "cairn.check" -}}
{{- include "cairn-lib.check" (dict "root" . "values" .Values "standalone" true) -}}
{{- include "cairn-lib.checkMaps" (dict "settings" .Values "needed" true "paths" (list
      "service.otlp" "service.spec" "networkPolicy" "networkPolicy.egress" "podDisruptionBudget" "serviceAccount" "podLabels"
      "podSpec" "ingress" "httpRoute")) -}}
{{- $instead := dict
      "containers" "extraContainers" "initContainers" "initContainers" "volumes" "extraVolumes"
      "serviceAccountName" "serviceAccount" "securityContext" "podSecurityContext"
      "terminationGracePeriodSeconds" "terminationGracePeriodSeconds" -}}
{{- range $field, $setting := $instead -}}
{{- if hasKey $.Values.podSpec $field -}}
{{- include "cairn-lib.refuse" (printf "podSpec.%s: remove it and set %s" $field $setting) -}}
{{- end -}}
{{- end -}}
{{- range $field := list "ports" "selector" "type" -}}
{{- if hasKey $.Values.service.spec $field -}}
{{- include "cairn-lib.refuse" (printf "service.spec.%s: remove it: the chart determines it" $field) -}}
{{- end -}}
{{- end -}}
{{- range concat .Values.extraContainers .Values.initContainers -}}
{{- if eq .name "cairn" -}}
{{- include "cairn-lib.refuse" "extraContainers, initContainers: rename cairn: Cairn's container has this name" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- include "cairn-lib.refuse" "httpRoute.parentRefs: name the Gateway" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- include "cairn-lib.refuse" "ingress.hosts: name a host" -}}
{{- end -}}
{{- $config := .Values.config -}}
{{- $auth := $config.auth | default dict -}}
{{- $log := $config.log | default dict -}}
{{- $secrets := .Values.secrets -}}
{{- if not (or $auth.allow_anonymous (eq (include "cairn-lib.authenticatesClients" (dict "values" .Values)) "true")) -}}
{{- include "cairn-lib.refuse" (cat
      "the server listens on all addresses: set secrets.apiKeys.name, or secrets.tls.name and"
      "secrets.clientCa.name, or, if everyone may send and read, config.auth.allow_anonymous: true") -}}
{{- end -}}
{{- with include "cairn-lib.listenAddresses" (dict "values" .Values) | fromYamlArray -}}
{{- $served := false -}}
{{- range . -}}
{{- if not (or (not (hasSuffix ":7600" .)) (hasPrefix "127." .) (hasPrefix "[::1]" .)) -}}{{- $served = true -}}{{- end -}}
{{- end -}}
{{- if not $served -}}
{{- include "cairn-lib.refuse" (cat
      "config.listen: remove it, or include 0.0.0.0:7600 or [::]:7600: the Service sends to port 7600 of"
      "the pod") -}}
{{- end -}}
{{- end -}}
{{- if hasKey (($config.ingest | default dict).otlp | default dict) "listen" -}}
{{- include "cairn-lib.refuse" (cat
      "config.ingest.otlp.listen: remove it and set service.otlp.enabled: true, which opens the port in all"
      "manifests") -}}
{{- end -}}
{{- if and .Values.logOriginPrefix $log.origin -}}
{{- include "cairn-lib.refuse" "logOriginPrefix, config.log.origin: set only one of them: both name the log" -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (or $log.origin $secrets.logKey.name) -}}
{{- include "cairn-lib.refuse" (cat
      "config.log.origin, secrets.logKey: remove them and set logOriginPrefix, or set replicas: 1: each replica"
      "has its own log, and several histories under one name or key are a fork") -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- /* All replicas have the same file. Only in the environment is $(POD_NAME) replaced. */ -}}
{{- $isShared := not (empty $log.checkpoint_file) -}}
{{- range .Values.extraEnv -}}
{{- if eq (toString .name) "CAIRN_LOG__CHECKPOINT_FILE" -}}{{- $isShared = not (contains "$(POD_NAME)" (toString .value)) -}}{{- end -}}
{{- end -}}
{{- if $isShared -}}
{{- include "cairn-lib.refuse" (cat
      "config.log.checkpoint_file: remove it and set CAIRN_LOG__CHECKPOINT_FILE in extraEnv, with $(POD_NAME) in"
      "its path, or set replicas: 1: each replica needs its own checkpoint file") -}}
{{- end -}}
{{- end -}}
{{- $cairn := merge (dict "root" . "values" .Values) (include "cairn.arguments" . | fromYaml) -}}
{{- $grace := ((include "cairn-lib.config" $cairn | fromYaml).shutdown | default dict).grace | default "20s" -}}
{{- $needed := include "cairn-lib.milliseconds" (dict "key" "config.shutdown.grace" "time" $grace) | int -}}
{{- $needed = add $needed (include "cairn-lib.milliseconds" (dict "key" "drainWithin" "time" .Values.drainWithin) | int) 5000 -}}
{{- if lt (mul 1000 (int .Values.terminationGracePeriodSeconds)) $needed -}}
{{- include "cairn-lib.refuse" (printf "terminationGracePeriodSeconds: set at least %d: drainWithin (%s), shutdown.grace (%s), and 5s to close the database" (div (add $needed 999) 1000) .Values.drainWithin $grace) -}}
{{- end -}}
{{- end -}}
