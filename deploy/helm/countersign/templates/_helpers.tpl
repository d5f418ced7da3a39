{{- define "countersign.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "countersign.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "countersign.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "countersign.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "countersign.selector" -}}
app.kubernetes.io/name: {{ include "countersign.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "countersign.labels" -}}
{{ include "countersign.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "countersign.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "countersign.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "countersign.configMap" -}}
{{- default (printf "%s-config" (include "countersign.fullname" .)) .Values.existingConfigMap -}}
{{- end }}

{{- define "countersign.tlsSecret" -}}
{{- default (printf "%s-tls" (include "countersign.fullname" .)) .Values.tls.existingSecret -}}
{{- end }}

{{- define "countersign.host" -}}
{{- printf "%s.%s.svc" (include "countersign.fullname" .) .Release.Namespace -}}
{{- end }}

{{- define "countersign.grace" -}}
{{- $least := add (int .Values.drain.delaySeconds) (int .Values.drain.seconds) -}}
{{- default (add $least 10) (int .Values.terminationGracePeriodSeconds) -}}
{{- end }}

{{- define "countersign.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* The port of the store's Redis: what stands behind the last host in its URL, or 6379; of Sentinels 26379. */}}
{{- define "countersign.redisPort" -}}
{{- $port := regexFind ":[0-9]+(/|$)" (regexReplaceAll "^[a-z+]*://" .Values.store.redis.url "") -}}
{{- $default := contains "+sentinel://" .Values.store.redis.url | ternary "26379" "6379" -}}
{{- default $default ($port | trimPrefix ":" | trimSuffix "/") -}}
{{- end }}

{{/* What can never work is refused here, with a sentence. */}}
{{- define "countersign.refusals" -}}
{{- $v := .Values -}}
{{- if and (not $v.config) (not $v.existingConfigMap) -}}
{{- fail "countersign: `config` is empty: write providers, routes and clients there, or name a ConfigMap with a whole proxy.toml in `existingConfigMap`" -}}
{{- end -}}
{{- if and $v.config $v.existingConfigMap -}}
{{- fail "countersign: `config` and `existingConfigMap` are both set: keep one" -}}
{{- end -}}
{{- if and $v.secretsVolume (or $v.existingSecret $v.existingSecrets) -}}
{{- fail "countersign: `secretsVolume` takes the place of `existingSecret` and `existingSecrets`: keep one" -}}
{{- end -}}
{{- if not (or $v.existingSecret $v.existingSecrets $v.secretsVolume) -}}
{{- fail "countersign: `existingSecret` is empty: name the Secret with the banks' credentials; this chart takes no secret as a value" -}}
{{- end -}}
{{- if and (ne $v.service.type "LoadBalancer") (or $v.service.loadBalancerClass $v.service.loadBalancerSourceRanges) -}}
{{- fail (printf "countersign: a Service of the type %s has no load balancer: set `service.type` to LoadBalancer, or leave `service.loadBalancerClass` and `service.loadBalancerSourceRanges` out" $v.service.type) -}}
{{- end -}}
{{- if and $v.tlsRoute.enabled (not $v.tlsRoute.parentRefs) -}}
{{- fail "countersign: `tlsRoute.parentRefs` is empty: name the Gateway whose listener passes TLS through" -}}
{{- end -}}
{{- if and $v.tlsRoute.enabled (not $v.tlsRoute.hostnames) -}}
{{- fail "countersign: `tlsRoute.hostnames` is empty: name the hosts that applications call" -}}
{{- end -}}
{{- if and (not $v.tls.existingSecret) (not $v.tls.certManager.enabled) -}}
{{- fail "countersign: there is no certificate: name a Secret of the type kubernetes.io/tls in `tls.existingSecret`, or set `tls.certManager.enabled` and its `issuerRef`" -}}
{{- end -}}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) -}}
{{- fail "countersign: `tls.certManager.issuerRef` has no name: name the Issuer or ClusterIssuer that signs" -}}
{{- end -}}
{{- if eq $v.store.kind "file" -}}
{{- if gt (int $v.replicas) 1 -}}
{{- fail (printf "countersign: %d replicas cannot share a store that is a file: set `store.kind` to redis, or `replicas` to 1" (int $v.replicas)) -}}
{{- end -}}
{{- if $v.autoscaling.enabled -}}
{{- fail "countersign: autoscaling makes replicas, and those cannot share a store that is a file: set `store.kind` to redis, or `autoscaling.enabled` to false" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.store.kind "redis") (not $v.store.redis.url) -}}
{{- fail "countersign: `store.redis.url` is empty: write rediss://host:6379/0" -}}
{{- end -}}
{{- if and $v.metrics.serviceMonitor.enabled (not $v.admin.expose) -}}
{{- fail "countersign: Prometheus cannot reach an admin listener inside the pod: set `admin.expose` to true, or `metrics.serviceMonitor.enabled` to false" -}}
{{- end -}}
{{- if le (int (include "countersign.grace" .)) (add (int $v.drain.delaySeconds) (int $v.drain.seconds) | int) -}}
{{- fail "countersign: `terminationGracePeriodSeconds` must be longer than `drain.delaySeconds` and `drain.seconds` together, or requests are cut off; 0 chooses it" -}}
{{- end -}}
{{- end }}

{{/* proxy.toml: what the chart knows, then what `config` says. */}}
{{- define "countersign.config" -}}
{{- $v := .Values -}}
[[listener]]
name = "gateway"
bind = {{ printf "%s:%d" (contains ":" $v.listener.address | ternary (printf "[%s]" $v.listener.address) $v.listener.address) (int $v.listener.port) | quote }}
tls  = { cert = "/run/tls/tls.crt", key = "/run/tls/tls.key"{{ with $v.tls.clientAuth }}, client_ca = "/run/tls/ca.crt", client_auth = {{ . | quote }}{{ end }} }

[admin]
{{- if $v.admin.expose }}
bind = {{ printf "0.0.0.0:%d" (int $v.admin.port) | quote }}
tls  = { cert = "/run/tls/tls.crt", key = "/run/tls/tls.key" }
open = ["livez", "readyz", "metrics"]

[admin.token.operator]
value = { file = {{ printf "/run/secrets/countersign/%s" $v.admin.tokenKey | quote }} }
role  = "operate"
{{- else }}
bind = {{ printf "127.0.0.1:%d" (int $v.admin.port) | quote }}
{{- end }}

[store]
{{- if eq $v.store.kind "memory" }}
url = "memory:"
{{- else }}
{{- if eq $v.store.kind "file" }}
url  = "file:/var/lib/countersign/countersign.redb"
{{- else }}
url  = {{ $v.store.redis.url | quote }}
namespace = {{ $v.store.redis.namespace | quote }}
{{- with $v.store.redis.username }}
username = {{ . | quote }}
{{- end }}
{{- with $v.store.redis.passwordKey }}
password = { file = {{ printf "/run/secrets/countersign/%s" . | quote }} }
{{- end }}
{{- with $v.store.redis.sentinelPasswordKey }}
sentinel = { password = { file = {{ printf "/run/secrets/countersign/%s" . | quote }} } }
{{- end }}
{{- with $v.store.redis.caKey }}
tls = { ca = {{ printf "/run/secrets/countersign/%s" . | quote }} }
{{- end }}
{{- end }}
keys = [{{ range $i, $key := $v.store.keys }}{{ if $i }}, {{ end }}{ file = {{ printf "/run/secrets/countersign/%s" $key | quote }} }{{ end }}]
{{- end }}

[log]
format = "json"
level  = {{ $v.log.level | quote }}
access = {{ $v.log.access | quote }}

[limits]
drain_delay = {{ printf "%ds" (int $v.drain.delaySeconds) | quote }}
drain       = {{ printf "%ds" (int $v.drain.seconds) | quote }}
{{- if $v.workers }}

[runtime]
workers = {{ int $v.workers }}
{{- end }}

{{- if not $v.restartOnConfigChange }}

[reload]
watch = "all"
{{- end }}

{{ $v.config | trim }}
{{- end }}

{{/* What the container and the chart's test mount alike. */}}
{{- define "countersign.mounts" -}}
- name: config
  mountPath: /etc/countersign
  readOnly: true
- name: secrets
  mountPath: /run/secrets/countersign
  readOnly: true
- name: tls
  mountPath: /run/tls
  readOnly: true
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "countersign.volumes" -}}
- name: config
  configMap:
    name: {{ include "countersign.configMap" . }}
- name: secrets
  {{- if .Values.secretsVolume }}
  {{- toYaml .Values.secretsVolume | nindent 2 }}
  {{- else if .Values.existingSecrets }}
  projected:
    defaultMode: 0440
    sources:
      {{- with .Values.existingSecret }}
      - secret:
          name: {{ . }}
      {{- end }}
      {{- range .Values.existingSecrets }}
      - secret:
          {{- toYaml . | nindent 10 }}
      {{- end }}
  {{- else }}
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
  {{- end }}
- name: tls
  secret:
    secretName: {{ include "countersign.tlsSecret" . }}
    defaultMode: 0440
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the gateway's pod and that of the chart's test have alike. */}}
{{- define "countersign.podSettings" -}}
serviceAccountName: {{ include "countersign.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "countersign.environment" -}}
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
