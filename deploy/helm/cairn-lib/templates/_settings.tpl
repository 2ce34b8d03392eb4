{{/*
What the other templates read from the settings.

Every template here that a chart may call takes a dict:
  root    the chart's own context, usually $
  values  the settings, as in values.yaml of this chart
and some of them, if the defaults do not fit:
  name    what the ConfigMap, and everything beside it, is called: RELEASE-cairn
*/}}

{{/* A word that is passed on to the user when something cannot work. */}}
{{- define "cairn-lib.refuse" -}}
{{- fail (printf "\n\nCairn: %s\n" .) -}}
{{- end -}}

{{/* The name of the ConfigMap, and of what stands beside it. */}}
{{- define "cairn-lib.name" -}}
{{- .name | default (printf "%s-cairn" (.root.Release.Name | trunc 53 | trimSuffix "-")) -}}
{{- end -}}

{{- define "cairn-lib.labels" -}}
app.kubernetes.io/name: cairn
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ include "cairn-lib.version" . | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Under which name this chart is a dependency: an alias may have given it any. */}}
{{- define "cairn-lib.self" -}}
{{- $found := "" -}}
{{- range $name, $chart := (.root | default dict).Subcharts -}}
{{- if and (eq $chart.Chart.Type "library") (index $chart.Chart.Annotations "cairn/library") -}}
{{- $found = $name -}}
{{- end -}}
{{- end -}}
{{- $found | required "Cairn: root has to be the context ($) of the chart that has cairn-lib among its dependencies" -}}
{{- end -}}

{{- define "cairn-lib.version" -}}
{{- (index .root.Subcharts (include "cairn-lib.self" .)).Chart.AppVersion -}}
{{- end -}}

{{/* A file of this chart. */}}
{{- define "cairn-lib.file" -}}
{{- $chart := index .root.Subcharts (include "cairn-lib.self" .) -}}
{{- $missing := printf "Cairn: cairn-lib has no %s: was it copied without following symbolic links?" .file -}}
{{- $chart.Files.Get .file | required $missing -}}
{{- end -}}

{{- define "cairn-lib.image" -}}
{{- $image := .values.image -}}
{{- $image.repository }}:{{ $image.tag | default (include "cairn-lib.version" .) }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* storage.size in Mi: what the ledger may take. */}}
{{- define "cairn-lib.sizeMi" -}}
{{- $size := toString .values.storage.size -}}
{{- if not (regexMatch "^[1-9][0-9]{0,9}(Mi|Gi)$" $size) -}}
{{- include "cairn-lib.refuse" (printf "storage.size: write it in whole Mi or Gi, such as 2Gi, not %s" $size) -}}
{{- else if hasSuffix "Gi" $size -}}
{{- mul (trimSuffix "Gi" $size | atoi) 1024 -}}
{{- else -}}
{{- trimSuffix "Mi" $size | atoi -}}
{{- end -}}
{{- end -}}

{{/* The volume in Mi: a quarter more for compactions and the write-ahead log, and storage.min_free_bytes. */}}
{{- define "cairn-lib.volumeMi" -}}
{{- $size := include "cairn-lib.sizeMi" . | int -}}
{{- add $size (div $size 4) 256 -}}
{{- end -}}

{{/* The ephemeral storage in Mi: what is not on a claim, and the container's log and /tmp. */}}
{{- define "cairn-lib.ephemeralMi" -}}
{{- if or .test (eq (include "cairn-lib.onClaim" .) "true") -}}
256
{{- else -}}
{{- add (include "cairn-lib.volumeMi" . | int) 128 -}}
{{- end -}}
{{- end -}}

{{/* Whether the ledger outlives the pod: in a StatefulSet, or on a claim that is there already. */}}
{{- define "cairn-lib.onClaim" -}}
{{- or .standalone (not (empty .values.storage.existingClaim)) -}}
{{- end -}}

{{/* A time of Cairn's configuration in ms: {key, time}. */}}
{{- define "cairn-lib.milliseconds" -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h) *)+$" (toString .time)) -}}
{{- include "cairn-lib.refuse" (printf "%s: write it in ms, s, m or h, such as 20s, not %v" .key .time) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" .time -1 -}}
{{- $number := regexFind "^[0-9]+" . | atoi -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = add $sum (mul $number (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The secrets that are named, as a YAML list: secrets.orgId ... */}}
{{- define "cairn-lib.secrets" -}}
{{- $named := list -}}
{{- range $what, $secret := .values.secrets -}}
{{- if $secret.name -}}{{- $named = append $named (printf "secrets.%s" $what) -}}{{- end -}}
{{- end -}}
{{- $named | toYaml -}}
{{- end -}}
