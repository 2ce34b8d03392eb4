{{/*
Values that the other templates derive from the settings.

Every template of this chart that another chart may call takes a dict:
  root    the context of the calling chart, usually $
  values  the settings, as in values.yaml of this chart
and optionally:
  name    the name of the ConfigMap and the other objects; default: RELEASE-cairn
  app     the label app.kubernetes.io/name; default: cairn
*/}}

{{/* Fails with a message for the user. */}}
{{- define "cairn-lib.refuse" -}}
{{- fail (printf "\n\nCairn: %s\n" .) -}}
{{- end -}}

{{/* The name of the ConfigMap and the other objects. */}}
{{- define "cairn-lib.name" -}}
{{- .name | default (printf "%s-cairn" (.root.Release.Name | trunc 53 | trimSuffix "-")) -}}
{{- end -}}

{{/* The labels of all objects. commonLabels add to them, and cannot replace them. */}}
{{- define "cairn-lib.labels" -}}
{{- $chart := printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- $own := dict
      "app.kubernetes.io/name" (.app | default "cairn")
      "app.kubernetes.io/instance" .root.Release.Name
      "app.kubernetes.io/version" (include "cairn-lib.version" .)
      "app.kubernetes.io/managed-by" .root.Release.Service
      "helm.sh/chart" $chart -}}
{{- merge $own (.values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{/*
The metadata of an object, whose labels and annotations override those of all objects:
  all          root and values
  name         the name of the object
  labels       its own labels
  annotations  its own annotations
*/}}
{{- define "cairn-lib.metadata" -}}
name: {{ .name }}
namespace: {{ .all.root.Release.Namespace }}
labels:
  {{- merge (.labels | default dict | deepCopy) (include "cairn-lib.labels" .all | fromYaml) | toYaml | nindent 2 }}
{{- with merge (.annotations | default dict | deepCopy) (.all.values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The name of this chart as a dependency, which is its alias if there is one. */}}
{{- define "cairn-lib.dependencyName" -}}
{{- $found := "" -}}
{{- range $name, $chart := (.root | default dict).Subcharts -}}
{{- if and (eq $chart.Chart.Type "library") (index $chart.Chart.Annotations "cairn/library") -}}
{{- $found = $name -}}
{{- end -}}
{{- end -}}
{{- $found | required "Cairn: root must be the context ($) of the chart that depends on cairn-lib" -}}
{{- end -}}

{{- define "cairn-lib.version" -}}
{{- (index .root.Subcharts (include "cairn-lib.dependencyName" .)).Chart.AppVersion -}}
{{- end -}}

{{/* A file of this chart. */}}
{{- define "cairn-lib.file" -}}
{{- $chart := index .root.Subcharts (include "cairn-lib.dependencyName" .) -}}
{{- $missing := printf "Cairn: cairn-lib has no %s: was it copied without following symbolic links?" .file -}}
{{- $chart.Files.Get .file | required $missing -}}
{{- end -}}

{{- define "cairn-lib.image" -}}
{{- $image := .values.image -}}
{{- $image.repository }}:{{ $image.tag | default (include "cairn-lib.version" .) }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/*
The maximum size of the ledger (storage.size), in whole Mi. It is a quantity of Kubernetes: 10Gi, 10G, 1.5Ti, 2e9.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
*/}}
{{- define "cairn-lib.sizeMi" -}}
{{- $size := toString .values.storage.size -}}
{{- $expected := printf "storage.size: expected a quantity of at least 1Mi, such as 2Gi, found %s" $size -}}
{{- if not (regexMatch "^([0-9]+\\.?[0-9]*|\\.[0-9]+)([KMGTPE]i|[kMGTPE]|[eE][+-]?[0-9]+)?$" $size) -}}
{{- include "cairn-lib.refuse" $expected -}}
{{- end -}}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $size -}}
{{- $unit := trimPrefix $number $size -}}
{{- $bytes := float64 $number -}}
{{- /* Each unit is the one before it times 1024 or 1000. */ -}}
{{- $steps := dict "" 0 "Ki" 1 "Mi" 2 "Gi" 3 "Ti" 4 "Pi" 5 "Ei" 6 "k" 1 "M" 2 "G" 3 "T" 4 "P" 5 "E" 6 -}}
{{- range until (get $steps $unit | int) -}}
{{- $bytes = mulf $bytes (ternary 1024.0 1000.0 (hasSuffix "i" $unit)) -}}
{{- end -}}
{{- $mi := divf $bytes 1048576.0 -}}
{{- if gt $mi 1099511627776.0 -}}
{{- include "cairn-lib.refuse" (printf "storage.size: expected at most 1Ei, found %s" $size) -}}
{{- end -}}
{{- if lt $mi 1.0 -}}
{{- include "cairn-lib.refuse" $expected -}}
{{- end -}}
{{- floor $mi | int64 -}}
{{- end -}}

{{/* The volume, in Mi: a quarter more for compactions and the write-ahead log, and storage.min_free_bytes. */}}
{{- define "cairn-lib.volumeMi" -}}
{{- $size := include "cairn-lib.sizeMi" . | int -}}
{{- add $size (div $size 4) 256 -}}
{{- end -}}

{{/* The ephemeral storage, in Mi: the volume unless it is a claim, and the container's log and /tmp. */}}
{{- define "cairn-lib.ephemeralMi" -}}
{{- if or .test (eq (include "cairn-lib.onClaim" .) "true") -}}
256
{{- else -}}
{{- add (include "cairn-lib.volumeMi" . | int) 128 -}}
{{- end -}}
{{- end -}}

{{/* Whether the ledger outlives the pod: in a StatefulSet, or on an existing claim. */}}
{{- define "cairn-lib.onClaim" -}}
{{- or .standalone (not (empty .values.storage.existingClaim)) -}}
{{- end -}}

{{/* A time of Cairn's configuration, in ms: {key, time}. */}}
{{- define "cairn-lib.milliseconds" -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h) *)+$" (toString .time)) -}}
{{- include "cairn-lib.refuse" (printf "%s: expected a time in ms, s, m or h, such as 20s, found %v" .key .time) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" .time -1 -}}
{{- $number := regexFind "^[0-9]+" . | atoi -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = add $sum (mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The secrets that are set, as a YAML list: secrets.orgId ... */}}
{{- define "cairn-lib.secrets" -}}
{{- $named := list -}}
{{- range $what, $secret := .values.secrets -}}
{{- if $secret.name -}}{{- $named = append $named (printf "secrets.%s" $what) -}}{{- end -}}
{{- end -}}
{{- $named | toYaml -}}
{{- end -}}
