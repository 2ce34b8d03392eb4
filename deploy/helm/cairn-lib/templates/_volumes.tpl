{{/*
Cairn's volumes: one for configuration and secrets, one for the ledger, one for /tmp.
*/}}

{{/* The volumes, as a YAML list. */}}
{{- define "cairn-lib.volumes" -}}
{{- include "cairn-lib.check" . -}}
{{- $secrets := .values.secrets -}}
# One volume without subPath, so that changed secrets are updated in the running container. Files have mode 0440, for
# the group fsGroup; the configuration is not secret, and a pod without secrets needs no fsGroup.
- name: cairn-config
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "cairn-lib.name" . }}
          items:
            - key: cairn.yaml
              path: cairn.yaml
              mode: 0444
      {{- if $secrets.orgId.name }}
      {{- include "cairn-lib.secret" (dict "secret" $secrets.orgId "path" "secrets/org-id") | nindent 6 }}
      {{- end }}
      {{- if $secrets.apiKeys.name }}
      {{- include "cairn-lib.secret" (dict "secret" $secrets.apiKeys "path" "secrets/api-keys") | nindent 6 }}
      {{- end }}
      {{- if $secrets.logKey.name }}
      {{- include "cairn-lib.secret" (dict "secret" $secrets.logKey "path" "secrets/log.key") | nindent 6 }}
      {{- end }}
      {{- with $secrets.tls.name }}
      - secret:
          name: {{ . }}
          items:
            - key: tls.crt
              path: tls/tls.crt
            - key: tls.key
              path: tls/tls.key
      {{- end }}
      {{- if $secrets.clientCa.name }}
      {{- include "cairn-lib.secret" (dict "secret" $secrets.clientCa "path" "tls/client-ca.crt") | nindent 6 }}
      {{- end }}
{{- if or .test (not .standalone) }}
- name: cairn-data
  {{- if .test }}
  # The server owns the volume of the ledger.
  emptyDir:
    sizeLimit: 64Mi
  {{- else if .values.storage.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .values.storage.existingClaim }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ include "cairn-lib.volumeMi" . }}Mi
  {{- end }}
{{- end }}
# The root file system is read-only, and `cairn verify` in the pod needs a writable directory.
- name: cairn-tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end -}}

{{/* One key of a Secret as a file: {secret, path}. */}}
{{- define "cairn-lib.secret" -}}
- secret:
    name: {{ .secret.name }}
    items:
      - key: {{ .secret.key }}
        path: {{ .path }}
{{- end -}}
