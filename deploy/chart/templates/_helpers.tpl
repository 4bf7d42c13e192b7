{{- define "windlass.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name }}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $both | trunc 45 | trimSuffix "-" }}
{{- end }}

{{- define "windlass.agent.namespace" -}}
{{ .Values.agent.namespace | default .Release.Namespace }}
{{- end }}

{{- define "windlass.provider.namespace" -}}
{{ .Values.provider.namespace | default .Release.Namespace }}
{{- end }}

{{- /* What never changes about a part's pods: a selector cannot. */}}
{{- define "windlass.agent.selector" -}}
app.kubernetes.io/name: windlass-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "windlass.provider.selector" -}}
app.kubernetes.io/name: windlass-autoscaler
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "windlass.agent.labels" -}}
{{ include "windlass.agent.selector" . }}
app.kubernetes.io/part-of: windlass
{{- end }}

{{- define "windlass.provider.labels" -}}
{{ include "windlass.provider.selector" . }}
app.kubernetes.io/part-of: windlass
{{- end }}

{{- define "windlass.agent.serviceAccount" -}}
{{- $own := printf "%s-agent" (include "windlass.fullname" .) }}
{{- .Values.agent.serviceAccount.name | default (.Values.agent.serviceAccount.create | ternary $own "default") }}
{{- end }}

{{- define "windlass.provider.serviceAccount" -}}
{{- $own := printf "%s-autoscaler" (include "windlass.fullname" .) }}
{{- .Values.provider.serviceAccount.name | default (.Values.provider.serviceAccount.create | ternary $own "default") }}
{{- end }}

{{- /* (image's values, tag by default) -> a reference, with the pull policy. */}}
{{- define "windlass.image" -}}
{{- $image := index . 0 }}
{{- $name := list $image.registry $image.repository | compact | join "/" }}
{{- $version := printf ":%s" ($image.tag | default (index . 1)) }}
{{- if $image.digest }}{{ $version = printf "@%s" $image.digest }}{{ end -}}
image: {{ printf "%s%s" $name $version }}{{ if not $image.registry }} # put your registry before it{{ end }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{- /* The agent's settings file, with the paths at which the chart puts things. */}}
{{- define "windlass.agent.config" -}}
{{- $config := deepCopy .Values.agent.config }}
{{- if .Values.agent.collectors }}{{ $config = set $config "collectors" "/etc/windlass/collectors.csv" }}{{ end }}
{{- if .Values.agent.webConfig.existingSecret }}{{ $config = set $config "web-config-file" (printf "/etc/windlass-web/%s" .Values.agent.webConfig.key) }}{{ end }}
{{- toYaml $config }}
{{- end }}

{{- define "windlass.agent.port" -}}
{{ .Values.agent.config.listen | default "0.0.0.0:9400" | regexFind "[0-9]+$" }}
{{- end }}

{{- define "windlass.agent.probe" -}}
{{- $web := .Values.agent.webConfig }}
{{- if not $web.existingSecret -}}
httpGet: {path: {{ .path }}, port: metrics}
{{- else if eq $web.probe "TCP" -}}
tcpSocket: {port: metrics}
{{- else -}}
httpGet: {path: {{ .path }}, port: metrics, scheme: {{ $web.probe }}}
{{- end }}
{{- end }}

{{- /* The provider's configuration: what the pod needs, and over it what is wanted. */}}
{{- define "windlass.provider.config" -}}
{{- if not .Values.provider.config.cloud }}
{{- fail "provider.config.cloud: say which cloud has the machines, such as --set provider.config.cloud.kind=aws,provider.config.cloud.clusterName=my-cluster" }}
{{- end }}
{{- $config := dict
  "provider" (dict "listen" "unix:///run/windlass/provider.sock")
  "expander" (dict
    "listen" "127.0.0.1:8087"
    "selfSigned" (dict "caFile" "/run/windlass/expander-ca.crt"))
  "http" (dict "listen" "0.0.0.0:8088")
  "state" "/var/lib/windlass/state.json" }}
{{- /* A list of priorities stands instead of a file, not beside it. */}}
{{- if not (dig "expander" "priorities" "" .Values.provider.config) }}
{{- $_ := set $config.expander "priorities" (dict "file" "/etc/windlass-priorities/priorities") }}
{{- end }}
{{- /* The agents tell of interruptions. Where they want TLS or a password only provider.config.usage can say how they are asked. */}}
{{- if and .Values.agent.enabled .Values.agent.service.enabled (not .Values.agent.webConfig.existingSecret) }}
{{- $agents := printf "%s-agent.%s.svc:%s" (include "windlass.fullname" .) (include "windlass.agent.namespace" .) (include "windlass.agent.port" .) }}
{{- $config = set $config "usage" (dict "agents" (dict "address" $agents)) }}
{{- end }}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.provider.config)) }}
{{- end }}

{{- define "windlass.provider.port" -}}
{{ (include "windlass.provider.config" . | fromYaml).http.listen | regexFind "[0-9]+$" }}
{{- end }}

{{- /* 32 of Kubernetes 1.32; 0 where an apiserver does not say. */}}
{{- define "windlass.kubernetes" -}}
{{ .Capabilities.KubeVersion.Minor | default "0" | regexFind "^[0-9]+" | default "0" }}
{{- end }}
