{{/*
The pod's volumes for Cairn: one for all that it reads, one for the ledger, one for /tmp.
*/}}

{{/* A YAML list. */}}
{{- define "cairn-lib.volumes" -}}
{{- include "cairn-lib.check" . -}}
{{- $secrets := .values.secrets -}}
# One volume, and no subPath: so that a secret that was changed comes into the running container. Files are 0440, for
# the group that fsGroup says; the configuration is no secret, and a pod without any needs no fsGroup.
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
  # The ledger's volume is the server's.
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
# The root is read-only, and `cairn verify` in the pod needs a place to write.
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
