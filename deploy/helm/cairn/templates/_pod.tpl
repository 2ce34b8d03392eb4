{{/*
The spec of the pods: the container of cairn-lib, and the settings of the user. podSpec is merged over it.
*/}}
{{- define "cairn.podSpec" -}}
{{- $cairn := merge (dict "root" $ "values" .Values) (include "cairn.arguments" . | fromYaml) -}}
serviceAccountName: {{ include "cairn.serviceAccount" . }}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
terminationGracePeriodSeconds: {{ int .Values.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- $fields := list
      "imagePullSecrets" "priorityClassName" "runtimeClassName" "schedulerName" "nodeSelector" "tolerations" "affinity"
      "topologySpreadConstraints" "hostAliases" "dnsPolicy" "dnsConfig" "initContainers" -}}
{{- range $field := $fields }}
{{- with get $.Values $field }}
{{ dict $field . | toYaml }}
{{- end }}
{{- end }}
containers:
  - {{ include "cairn-lib.container" $cairn | nindent 4 | trim }}
  {{- with .Values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "cairn-lib.volumes" $cairn | nindent 2 }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
