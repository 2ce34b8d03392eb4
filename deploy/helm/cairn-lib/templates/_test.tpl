{{/*
A pod for `helm test`: the same container with the same configuration and secrets, which runs `cairn config validate`.
Besides root and values it takes
  pod     the pod template that cairn-lib.pod takes, for its account, its securityContext, and its scheduling
*/}}
{{- define "cairn-lib.test" -}}
{{- include "cairn-lib.checkConfig" . -}}
{{- $test := merge (dict "test" true) . -}}
{{- $spec := (.pod | default dict).spec | default dict -}}
{{- $container := include "cairn-lib.base" $test | fromYaml -}}
{{- $container = omit $container "ports" "startupProbe" "livenessProbe" "readinessProbe" -}}
{{- $_ := set $container "args" (list "config" "validate") -}}
{{- $volumes := include "cairn-lib.volumes" $test | fromYamlArray -}}
{{- /* The configuration may name files of these. Not of claims: a claim on another node would block the test. */ -}}
{{- $extra := list -}}
{{- range .values.extraVolumeMounts -}}{{- $extra = append $extra .name -}}{{- end -}}
{{- range $spec.volumes -}}
{{- if and (has .name $extra) (or .secret .configMap .projected) -}}{{- $volumes = append $volumes . -}}{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $volumes -}}{{- $names = append $names .name -}}{{- end -}}
{{- $mounts := list -}}
{{- range $container.volumeMounts -}}
{{- if has .name $names -}}{{- $mounts = append $mounts . -}}{{- end -}}
{{- end -}}
{{- $_ := set $container "volumeMounts" $mounts -}}
apiVersion: v1
kind: Pod
metadata:
  {{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" }}
  {{- $name := printf "%s-test-config" (include "cairn-lib.name" .) }}
  {{- include "cairn-lib.metadata" (dict "all" . "name" $name "annotations" $hook) | nindent 2 }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  {{- range $key := list "serviceAccountName" "securityContext" "imagePullSecrets" "nodeSelector" "tolerations" }}
  {{- with get $spec $key }}
  {{- dict $key . | toYaml | nindent 2 }}
  {{- end }}
  {{- end }}
  containers:
    - {{ toYaml $container | nindent 6 | trim }}
  volumes:
    {{- toYaml $volumes | nindent 4 }}
{{- end -}}
