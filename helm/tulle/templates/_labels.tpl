{{- /*
Labels of every object, and of pods (indented for where they stand). This chart uses no more than `template`, `with`, `if`, `range` and a
handful of functions: `meshctl install` renders it without Helm (mesh-ctl/src/chart), and a test compares the two, object by object.
*/ -}}
{{- define "tulle.labels" -}}
app.kubernetes.io/part-of: tulle
    app.kubernetes.io/instance: {{ .Release.Name }}
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
{{- define "tulle.podLabels" -}}
app.kubernetes.io/part-of: tulle
        app.kubernetes.io/instance: {{ .Release.Name }}
        app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}
