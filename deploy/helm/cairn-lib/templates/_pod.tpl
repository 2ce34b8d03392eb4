{{/*
Adds Cairn to a pod template. Besides root and values it takes
  pod     the pod template (metadata, spec) as a dict, for example from fromYaml
and returns it as YAML, with the label, the checksum, the container and the volumes. Settings that only the pod can contain
(fsGroup, terminationGracePeriodSeconds) are checked, and not changed.
*/}}
{{- define "cairn-lib.pod" -}}
{{- include "cairn-lib.checkPod" . -}}
{{- $pod := deepCopy .pod -}}
{{- $metadata := $pod.metadata | default dict -}}
{{- $_ := set $metadata "labels" (merge (dict "cairn" "sidecar") ($metadata.labels | default dict)) -}}
{{- $checksum := dict "checksum/cairn-config" (include "cairn-lib.config" . | sha256sum) -}}
{{- $_ := set $metadata "annotations" (merge $checksum ($metadata.annotations | default dict)) -}}
{{- $_ := set $pod "metadata" $metadata -}}
{{- $spec := $pod.spec -}}
{{- if .values.sidecar.native -}}
{{- /* First, so that other init containers can send events, too. */ -}}
{{- $cairn := include "cairn-lib.initContainer" . | fromYaml -}}
{{- $_ := set $spec "initContainers" (prepend ($spec.initContainers | default list) $cairn) -}}
{{- else -}}
{{- /* Last, so that the app stays the default container of kubectl logs and exec. */ -}}
{{- $cairn := include "cairn-lib.container" . | fromYaml -}}
{{- $_ := set $spec "containers" (append $spec.containers $cairn) -}}
{{- end -}}
{{- $volumes := include "cairn-lib.volumes" . | fromYamlArray -}}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) $volumes) -}}
{{- toYaml $pod -}}
{{- end -}}

{{/* Refuses a pod whose settings do not fit Cairn. */}}
{{- define "cairn-lib.checkPod" -}}
{{- include "cairn-lib.check" . -}}
{{- $pod := .pod -}}
{{- if not (kindIs "map" $pod) -}}
{{- include "cairn-lib.refuse" "cairn-lib.pod: pass the pod template as a dict: \"pod\" (include \"my.pod\" . | fromYaml)" -}}
{{- end -}}
{{- if $pod.Error -}}
{{- include "cairn-lib.refuse" (printf "cairn-lib.pod: the pod template is not valid YAML: %v" $pod.Error) -}}
{{- end -}}
{{- if not ($pod.spec | default dict).containers -}}
{{- include "cairn-lib.refuse" "cairn-lib.pod: the pod template has no spec.containers" -}}
{{- end -}}
{{- $spec := $pod.spec -}}
{{- include "cairn-lib.checkNames" $spec -}}
{{- $native := .values.sidecar.native -}}
{{- if and $native (semverCompare "<1.29.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "sidecar.native: set it to false: Kubernetes %s has no native sidecars (for helm template, set the"
      "version with --kube-version)") .root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $config := include "cairn-lib.config" . | fromYaml -}}
{{- $grace := ($config.shutdown | default dict).grace | default "20s" -}}
{{- $needed := include "cairn-lib.milliseconds" (dict "key" "config.shutdown.grace" "time" $grace) | int -}}
{{- $needed = add $needed 5000 -}}
{{- $why := printf "shutdown.grace (%s) and 5s to close the database" $grace -}}
{{- if not $native -}}
{{- $drain := .values.sidecar.drainWithin -}}
{{- $needed = add $needed (include "cairn-lib.milliseconds" (dict "key" "sidecar.drainWithin" "time" $drain) | int) -}}
{{- $why = printf "sidecar.drainWithin (%s), shutdown.grace (%s), and 5s to close the database" $drain $grace -}}
{{- end -}}
{{- $given := 30 -}}
{{- if hasKey $spec "terminationGracePeriodSeconds" -}}{{- $given = int $spec.terminationGracePeriodSeconds -}}{{- end -}}
{{- if lt (mul $given 1000 | int) (int $needed) -}}
{{- include "cairn-lib.refuse" (printf "spec.terminationGracePeriodSeconds: %d is less than %s: set the time that the app needs plus %d" $given $why (div (add $needed 999) 1000)) -}}
{{- end -}}
{{- if and $spec.hostNetwork (ne (include "cairn-lib.authenticatesClients" .) "true") -}}
{{- include "cairn-lib.refuse" (cat
      "spec.hostNetwork: remove it, or set secrets.apiKeys.name, or secrets.tls.name and"
      "secrets.clientCa.name: 127.0.0.1:7600 would be the node's, and every process there could send and read") -}}
{{- end -}}
{{- $mounted := include "cairn-lib.secrets" . | fromYamlArray -}}
{{- if .values.storage.existingClaim -}}{{- $mounted = append $mounted "storage.existingClaim" -}}{{- end -}}
{{- if and $mounted (not (hasKey ($spec.securityContext | default dict) "fsGroup")) -}}
{{- include "cairn-lib.refuse" (printf (cat
      "spec.securityContext.fsGroup: set it to 10001 (and fsGroupChangePolicy: OnRootMismatch): without it,"
      "Cairn may not read or write %s") (join ", " $mounted)) -}}
{{- end -}}
{{- end -}}

{{/* Refuses the names that the sidecar uses, because the API rejects duplicates. */}}
{{- define "cairn-lib.checkNames" -}}
{{- $own := list "cairn" "cairn-config" "cairn-data" "cairn-tmp" -}}
{{- range $what := list "initContainers" "containers" "volumes" -}}
{{- range get $ $what | default list -}}
{{- if has .name $own -}}
{{- include "cairn-lib.refuse" (printf "spec.%s: rename or remove %s: the sidecar uses the names %s" $what .name (join ", " $own)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
